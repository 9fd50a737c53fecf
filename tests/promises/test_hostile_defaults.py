"""The promises on a database whose own defaults, or its role's, are against them: none of these is left to decide."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from app.store import session
from app.store.connecting import connected
from app.store.db import READING
from tests.handlers import Handler, Reply
from tests.sluices import Replica
from tests.support import poll
from tests.walk import walk
from tests.wire.api import Api, good

pytestmark = pytest.mark.anyio

HOSTILE = {
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "search_path": "public",
    "synchronous_commit": "off",
    "row_security": "on",
    "statement_timeout": "2s",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "1s",
    "idle_session_timeout": "2s",
    "transaction_timeout": "1s",
    "standard_conforming_strings": "off",
    "timezone": "Asia/Kathmandu",
    "datestyle": "German, DMY",
    "intervalstyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "array_nulls": "off",
    "client_min_messages": "error",
    "exit_on_error": "on",
    "enable_bitmapscan": "on",
    "enable_seqscan": "off",
    "enable_indexscan": "off",
    "enable_indexonlyscan": "off",
    "enable_nestloop": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_sort": "off",
    "enable_hashagg": "off",
    "enable_material": "off",
    "enable_memoize": "off",
    "enable_partition_pruning": "off",
    "plan_cache_mode": "force_generic_plan",
    "from_collapse_limit": "1",
    "join_collapse_limit": "1",
    "constraint_exclusion": "on",
    "jit": "on",
}
CALLERS = 120


async def spoil(url: str, **defaults: str) -> None:
    """Give the database these defaults, and the role in it the first half of them, which come before the database's."""
    connection = await asyncpg.connect(url)
    try:
        name = await connection.fetchval("select current_database()")
        known = {row[0] for row in await connection.fetch("select lower(name) from pg_settings")}
        given = [(setting, value) for setting, value in defaults.items() if setting in known]
        for place, (setting, value) in enumerate(given):
            whose = f'role current_user in database "{name}"' if place < len(given) // 2 else f'database "{name}"'
            await connection.execute(f"alter {whose} set {setting} = '{value}'")
    finally:
        await connection.close()


@pytest.fixture
async def spoilt_url(empty_database_url: str) -> str:
    await spoil(empty_database_url, **HOSTILE)
    return empty_database_url


@pytest.fixture(params=["serializable", pytest.param("repeatable read", marks=pytest.mark.ci)])
async def apis(
    request: pytest.FixtureRequest, empty_database_url: str, start_replica: Callable[..., Awaitable[Replica]]
) -> list[Api]:
    """Two replicas."""
    await spoil(empty_database_url, **{**HOSTILE, "default_transaction_isolation": request.param})
    first, second = [await start_replica(database_url=empty_database_url) for _ in range(2)]
    return [Api(first.client, first.url), Api(second.client, second.url)]


async def statuses(apis: list[Api], queue: str, **fields: Callable[[int], str]) -> Counter[int]:
    replies = await asyncio.gather(
        *(
            apis[n % 2].post(
                f"/queues/{queue}/tasks", json={"payload": 1, **{name: of(n) for name, of in fields.items()}}
            )
            for n in range(CALLERS)
        )
    )
    return Counter(reply.status_code for reply in replies)


async def test_max_depth_is_exact(apis: list[Api]) -> None:
    assert await statuses(apis, await apis[0].queue(max_depth=20)) == {201: 20, 429: CALLERS - 20}


async def test_keyed_posts_make_each_task_once(apis: list[Api]) -> None:
    queue = await apis[0].queue()
    assert await statuses(apis, queue, idempotency_key=lambda n: f"k{n % 30}") == {201: 30, 200: CALLERS - 30}
    assert await statuses(apis, queue, unique_key=lambda n: f"u{n % 30}") == {201: 30, 200: CALLERS - 30}


async def test_a_limit_is_exact_and_all_work_is_done(apis: list[Api], handler: Handler) -> None:
    until = asyncio.Event()
    handler.script(Reply(until=until))
    queue = await apis[0].queue(await apis[0].handler(handler.url), max_concurrency=3)
    assert await statuses(apis, queue) == {201: CALLERS}
    await handler.received(3)
    until.set()

    async def done() -> bool:
        return bool(good(await apis[0].get(f"/queues/{queue}/stats"))["counts"]["succeeded"] == CALLERS)

    await poll(done, 30)
    assert handler.most_open_calls == 3
    assert len(handler.requests) == CALLERS


async def test_no_connection_takes_a_setting_from_them(
    spoilt_url: str, start_replica: Callable[..., Awaitable[Replica]]
) -> None:
    assert {name for name in session.SETTINGS if not name.startswith("tcp_")} == set(HOSTILE)
    db = (await start_replica(database_url=spoilt_url)).sluice.core.db
    async with connected(spoilt_url) as own:
        ours = session.known_settings(own.get_server_version().major)
        asked = "select " + ", ".join(f"current_setting('{name}') = {_as_shown(name)} as {name}" for name in ours)
        found = [dict((await own.fetchrow(asked)).items()), dict((await db.fetch(asked))[0].items())]
    async with db.begin("anyone") as connection:
        found.append(dict((await connection.fetchrow(asked)).items()))
    (read,) = await db.reads("anyone").fetch(asked)
    found.append({name: is_ours for name, is_ours in read.items() if name not in {"statement_timeout", *READING}})
    for right in found:
        assert [name for name, is_ours in right.items() if not is_ours] == []


def _as_shown(name: str) -> str:
    """Our value as Postgres shows it, as an expression."""
    if name.startswith("tcp_"):
        return f"current_setting('{name}')"  # a Unix socket has none
    milliseconds = {"15000": "15s", "30000": "30s"}
    value = session.SETTINGS[name]
    return f"'{milliseconds.get(value, value)}'"


@pytest.mark.ci
async def test_all_that_it_does_works_under_them(
    spoilt_url: str, start_replica: Callable[..., Awaitable[Replica]], handler: Handler
) -> None:
    replica = await start_replica(database_url=spoilt_url)
    await walk(Api(replica.client, replica.url), handler)
