"""Behind Debian's PgBouncer: session mode as it is, transaction mode with a direct way beside it, and what cannot work."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import uuid4

import asyncpg
import pytest

from app.main import wait_for_database
from app.settings import SettingsError
from app.store import session, tasks
from app.store.db import Database
from app.store.examination import examine_pooler
from app.store.failures import Unsuitable
from app.store.sockets import AnsweringConnection
from app.store.tasks import AttemptEnd
from tests.databases import with_database
from tests.handlers import Handler, Reply
from tests.sluices import Replica, start_process
from tests.support import poll
from tests.walk import walk
from tests.wire.api import Api, good

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

StartPooler = Callable[..., Awaitable[str]]
StartReplica = Callable[..., Awaitable[Replica]]


async def test_session_mode_works_as_it_is(
    start_pooler: StartPooler, start_replica: StartReplica, handler: Handler
) -> None:
    replica = await start_replica(database_url=await start_pooler("session"))
    await walk(Api(replica.client, replica.url), handler)


async def test_transaction_mode_works_with_a_direct_url(
    start_pooler: StartPooler, start_replica: StartReplica, database_url: str, handler: Handler
) -> None:
    pooled = await start_pooler("transaction", default_pool_size="3")
    replica = await start_replica(database_url=pooled, database_direct_url=database_url)
    await walk(Api(replica.client, replica.url), handler)


async def test_replicas_behind_a_pooler_hear_each_other_by_the_direct_way(
    start_pooler: StartPooler, start_replica: StartReplica, database_url: str, handler: Handler
) -> None:
    pooled = await start_pooler("transaction")
    direct = f"{database_url}&application_name=direct"
    replicas = [await start_replica(database_url=pooled, database_direct_url=direct) for _ in range(2)]
    listening = (
        "select count(*) from pg_stat_activity where application_name = 'direct' and query ~* '^(listen|notify) '"
    )

    async def all_listen() -> bool:
        return bool(await replicas[0].sluice.core.db.fetchval(listening) == 2)

    await poll(all_listen)
    apis, until = [Api(replica.client, replica.url) for replica in replicas], asyncio.Event()
    handler.script(Reply(until=until))
    task = await apis[0].enqueue(await apis[0].queue_to(handler.url))
    await handler.received(1)
    calling = next(place for place, replica in enumerate(replicas) if replica.sluice.engine.in_flight)
    good(await apis[1 - calling].cancel(task["id"]))
    # a replica that is not told finds out when it renews, after ten seconds
    await poll(lambda: replicas[calling].sluice.engine.in_flight == 0, 5)
    until.set()


async def test_each_transaction_behind_a_pooler_sets_itself_and_leaves_nothing_behind(
    start_pooler: StartPooler, database_url: str
) -> None:
    pooled = await start_pooler("transaction", default_pool_size="1")
    db = Database(pooled, database_url)
    await db.open()
    stranger = await asyncpg.connect(pooled, statement_cache_size=0)
    try:
        # what another client of the pool leaves in the one session that all of them use
        await stranger.execute(
            "set default_transaction_isolation = 'serializable'; set default_transaction_read_only = on;"
            " set search_path = public; set synchronous_commit = off; set statement_timeout = '1s'; set jit = on"
        )
        names = (
            "transaction_isolation",
            "transaction_read_only",
            "search_path",
            "synchronous_commit",
            "statement_timeout",
        )
        asked = "select " + ", ".join(f"current_setting('{name}')" for name in names)
        ours = ("read committed", "off", session.SEARCH_PATH, "on", "15s")
        assert tuple((await db.fetch(asked))[0]) == ours
        async with db.transaction() as connection:
            assert tuple(await connection.fetchrow(asked)) == ours
        async with db.begin("anyone") as definitions:
            assert tuple(await definitions.fetchrow(asked)) == ours
        # the driver looks up the type of what it sends here, which it has not met before
        assert await tasks.settle(db, [AttemptEnd(str(uuid4()), str(uuid4()), "succeeded", "succeeded")])
        assert await stranger.fetchval("show jit") == "on"
        assert tuple(await stranger.fetchrow(asked)) == ("serializable", "on", "public", "off", "1s")
        assert await stranger.fetchval("select count(*) from pg_prepared_statements where name <> ''") == 0
    finally:
        await stranger.close()
        await db.close()


async def test_the_driver_looks_up_a_type_once_for_each_connection(
    start_pooler: StartPooler, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a transaction pooler, too, where each statement is prepared anew."""
    looks: list[object] = []
    look = AnsweringConnection._introspect_types

    async def counted(connection: AnsweringConnection, *args: object) -> object:
        looks.append(connection)
        return await look(connection, *args)

    monkeypatch.setattr(AnsweringConnection, "_introspect_types", counted)
    db = Database(await start_pooler("transaction"), database_url)
    await db.open()
    try:
        for _ in range(5):
            await tasks.settle(db, [AttemptEnd(str(uuid4()), str(uuid4()), "succeeded", "succeeded")])
        assert len(looks) == 1
    finally:
        await db.close()


@pytest.mark.parametrize(
    ("mode", "settings", "says"),
    [
        (
            "transaction",
            {},
            "SLUICE_DATABASE_URL leads through a transaction pooler, which keeps no sessions: leave it, and set",
        ),
        ("transaction", {"server_round_robin": "1", "min_pool_size": "2"}, "leads through a transaction pooler"),
        ("statement", {}, "switch it to session mode; transaction mode also needs SLUICE_DATABASE_DIRECT_URL."),
    ],
)
async def test_a_pooler_that_keeps_no_session_is_refused_with_the_line_to_change(
    start_pooler: StartPooler, mode: str, settings: dict[str, str], says: str
) -> None:
    with pytest.raises(SettingsError, match="SLUICE_DATABASE_DIRECT_URL") as caught:
        await wait_for_database(await start_pooler(mode, **settings))
    assert says in str(caught.value)


async def test_nothing_is_left_in_a_pool_by_a_start_that_is_refused(start_pooler: StartPooler) -> None:
    """What others use through it would find our settings there."""
    pooled = await start_pooler("transaction", default_pool_size="1")
    with pytest.raises(SettingsError):
        await wait_for_database(pooled)
    other = await asyncpg.connect(pooled, statement_cache_size=0)
    assert await other.fetchval("show search_path") == '"$user", public'
    await other.close()


async def test_a_direct_url_that_is_none_is_refused(start_pooler: StartPooler, database_url: str) -> None:
    pooled = await start_pooler("transaction")
    with pytest.raises(SettingsError, match=r"^SLUICE_DATABASE_DIRECT_URL leads through a transaction pooler"):
        await wait_for_database(pooled, pooled)
    with pytest.raises(SettingsError, match="both must lead to the same database of the same server"):
        await wait_for_database(pooled, with_database(database_url, "postgres"))


async def test_a_parameter_that_the_pooler_does_not_take_is_named(start_pooler: StartPooler) -> None:
    pooled = await start_pooler("session")
    with pytest.raises(SettingsError, match=r"unsupported startup parameter: options.*: remove it"):
        await wait_for_database(f"{pooled}&options=-c%20geqo%3Doff")


@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_a_way_that_does_not_pass_settings_on_is_refused(
    start_pooler: StartPooler, database_url: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As poolers do that answer SET themselves."""
    monkeypatch.setattr(session, "_set", lambda settings, scope: "select 1")
    pooled = await start_pooler(mode)
    with pytest.raises(
        (SettingsError, Unsuitable),
        match=r"does not pass SET on .search_path is",
    ):
        await (wait_for_database(pooled) if mode == "session" else examine_pooler(pooled, database_url))


async def test_a_refused_start_is_one_line_and_exit_2(start_pooler: StartPooler) -> None:
    pooled = await start_pooler("transaction")
    process = await start_process("up", environment={"SLUICE_DATABASE_URL": pooled, "SLUICE_PORT": "0"})
    assert await process.ended() == 2
    (line,) = process.lines
    assert line.startswith("SLUICE_DATABASE_URL leads through a transaction pooler")
