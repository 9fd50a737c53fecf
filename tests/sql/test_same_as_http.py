"""The same task, over HTTP and in SQL: accepted or refused alike, and stored alike, field by field."""

import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.sluices import Replica
from tests.wire.api import Api, fresh

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

CODES = {
    "SL400": "malformed",
    "SL404": "queue_not_found",
    "SL409": "idempotency_mismatch",
    "SL413": "too_large",
    "SL422": "invalid",
    "SL429": "queue_full",
    "SL430": "key_full",
}
DEEP = "[" * 128 + "]" * 128

PAYLOADS = [
    "null",
    "1",
    '"a"',
    '{"b": 1, "a": 2}',
    ' {"a" :1.50} ',
    "[1,\n2]",
    '{"\u00e9": "\\u00e9"}',
    '"\\ud83d\\ude00"',
    '"\\u0000"',
    '{"a:b": "c:d{["}',
    '"\\\\ud800"',
    '"a\\\\"',
    DEEP,
    "-0",
    "1e5",
    '{"a": {"a": 1}, "b": [{"a": 2}, {"a": 3}]}',
    "123456789012345678901234567890",
    "1.5E+3",
    "1e131072",
    '{"1e400": -1.5E-99999, "1e401" :1e99999}',
    '{"\\u0061": 1}',
    '{"\\u0000": 1}',
    '{"\\u0000": 1, "\\ue000": 2, "\\u0001": 3, "\\u0001\\u0002": 4, "\\u0001\\u0001": 5}',
    "",
    " ",
    "nul",
    "{",
    "[1,]",
    "01",
    "+1",
    ".5",
    "NaN",
    "Infinity",
    "'a'",
    '{"a": 1, "a": 2}',
    '{"a": 1, "\\u0061": 2}',
    '{"x": [{"a": 1, "a": 1}]}',
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '"\\ud83d\\u0041"',
    f"[{DEEP}]",
    "[" * 5000,
    '"\t"',
    '"\\x41"',
    "1 2",
    "{1: 2}",
    "// a\n1",
    '"' + "x" * 1_048_576 + '"',
]

OPTIONS: list[dict[str, Any]] = [
    json.loads(line) for line in Path(__file__).with_name("options.jsonl").read_text().splitlines()
]
"""Accepted ones first, then those that are refused. A name with a $ stands for what the test has made."""

STORED = """
select priority, state, handler_id, payload, options - 'traceparent' - 'tracestate' as options, idempotency_key, unique_key,
       max_attempts, flow_id is null as plain, case when $2 then run_at end as run_at,
       extract(epoch from run_at - created_at) as delay, extract(epoch from idempotency_until - created_at) as kept,
       case when expires_at - created_at < '4000 s' then extract(epoch from expires_at - created_at)::text
            else expires_at::text end as expires, lease_token, attempt, claims, root_id, parent_id, batch_id, completes
from sluice.tasks where id = $1
"""


class World:
    """Two queues alike, one asked over HTTP and one in SQL, and what their tasks may name."""

    def __init__(self, api: Api, session: Any, owner: Any) -> None:
        self.api, self.session, self.owner = api, session, owner
        self.queues: list[str] = []
        self.names: dict[str, str] = {}

    @classmethod
    async def made(cls, replica: Replica, api: Api, session: Any, **queue: Any) -> "World":
        world = cls(api, session, replica.sluice.core.db)
        handler = await api.handler("http://127.0.0.1:9/h", targets="path")
        # nothing of it is called: the handler is for pull workers' queues nothing but a name, and here it is disabled
        await api.post(f"/handlers/{handler}/disable")
        world.names["$handler"] = handler
        world.queues = [await api.queue(handler, **queue) for _ in range(2)]
        world.names["$queue"] = world.queues[0]
        world.names["$limit"] = await api.limit(max_concurrency=5, rate={"limit": 10, "burst": 50})
        world.names["$keyed"] = await api.limit(max_concurrency=5, keyed=True)
        return world

    def named(self, value: Any) -> Any:
        text = json.dumps(value)
        for name, ours in self.names.items():
            text = text.replace(json.dumps(name), json.dumps(ours))
        return json.loads(text)

    async def over_http(self, payload: str, options: dict[str, Any]) -> tuple[str, list[str], str | None]:
        """The code, the pointers, and the task's id."""
        body = json.dumps(options)[1:-1]
        text = '{"payload": ' + payload + (", " + body if body else "") + "}"
        reply = await self.api.enqueue_bytes(self.queues[0], text.encode("utf-8", "surrogatepass"))
        answer = reply.json()
        if reply.status_code < 300:
            return "ok", [], answer["id"]
        return answer["code"], [error["pointer"] for error in answer.get("errors", [])], None

    async def in_sql(self, payload: str, options: dict[str, Any]) -> tuple[str, str, str | None]:
        try:
            found = await self.session.fetchval(
                "select sluice.enqueue($1, $2, $3)", self.queues[1], payload, json.dumps(options)
            )
        except asyncpg.PostgresError as error:
            return CODES.get(error.sqlstate, f"{error.sqlstate} {error}"), error.detail or "", None
        return "ok", "", str(found)

    async def stored(self, task_id: str | None, *, dated: bool) -> dict[str, Any]:
        row = dict((await self.owner.fetch(STORED, task_id, dated))[0])
        row["options"] = row["options"] and json.loads(row["options"])
        for near in ("delay", "kept"):
            row[near] = row[near] and round(float(row[near]), 1)
        row["expires"] = row["expires"] and row["expires"][:10].rstrip("0")
        return row


@pytest.fixture
async def world(shared: Replica, api: Api, session: Any) -> World:
    return await World.made(shared, api, session)


async def test_payloads_are_accepted_and_refused_alike_and_kept_byte_for_byte(world: World) -> None:
    for payload in PAYLOADS:
        code, _, one = await world.over_http(payload, {})
        verdict, pointer, other = await world.in_sql(payload, {})
        where = payload[:80]
        # over HTTP, what is no payload spoils the body, or leaves it empty: a payload of its own is malformed there
        assert (verdict, code) in {(code, code), ("invalid", "malformed")}, (where, code, verdict)
        if code == "ok":
            rows = [await world.stored(one, dated=False), await world.stored(other, dated=False)]
            assert rows[0] == rows[1], where
            assert rows[1]["payload"] == payload.strip().encode(), where
        else:
            assert pointer == "/payload", where


async def test_options_are_accepted_and_refused_alike_and_stored_alike(world: World) -> None:
    accepted = 0
    for given in OPTIONS:
        options = world.named(given)
        code, pointers, one = await world.over_http("1", options)
        verdict, pointer, other = await world.in_sql("1", options)
        assert (verdict, pointer if code != "ok" else "") == (code, pointer if pointer in pointers else pointers or ""), (
            given, code, pointers, verdict, pointer)  # fmt: skip
        if code == "ok":
            accepted += 1
            dated = options.get("run_at") is not None and not options["run_at"].startswith("2020")
            rows = [await world.stored(one, dated=dated), await world.stored(other, dated=dated)]
            if dated:
                for row in rows:
                    del row["delay"]
            assert rows[0] == rows[1], given
    assert accepted > 40


async def test_the_same_key_stands_for_the_same_task_on_both_sides(world: World) -> None:
    world.queues[1] = world.queues[0]
    for given in OPTIONS:
        options = world.named(given) | {"idempotency_key": fresh("k")}
        if options.get("unique_key") is not None:
            options["unique_key"] = fresh("u")
        code, _, one = await world.over_http("[1, 2]", options)
        if code == "ok":
            assert await world.in_sql("[1, 2]", options) == ("ok", "", one), given
            assert (await world.in_sql("[1,2]", options))[0] == "idempotency_mismatch"
            assert (await world.in_sql("[1, 2]", options | {"tags": ["other"]}))[0] == "idempotency_mismatch"
            options["idempotency_key"] = fresh("k")
            if options.get("unique_key") is not None:
                options["unique_key"] = fresh("u")
            _, _, other = await world.in_sql("[1, 2]", options)
            assert await world.over_http("[1, 2]", options) == ("ok", [], other), given
            assert (await world.over_http("[1,2]", options))[0] == "idempotency_mismatch"


async def test_numbers_of_any_exponent_are_read_as_over_http(session: Any, api: Api) -> None:
    """Postgres has no double below 5e-324, and writes 1e131071 out, which for many of them fills a gigabyte."""
    queue, enqueue = await api.queue(), "select sluice.enqueue($1, $2, $3::jsonb)"
    task_id = await session.fetchval(enqueue, queue, "1", '{"delay_seconds": 1e-400}')
    assert (await api.task(str(task_id)))["state"] == "ready"
    payload = "[" + ",".join(["1e131071"] * 20_000) + "]"
    await session.fetchval(enqueue, queue, payload, "{}", timeout=5)


async def test_many_tasks_that_are_null_are_refused(session: Any, api: Api) -> None:
    with pytest.raises(asyncpg.PostgresError) as error:
        await session.fetch("select sluice.enqueue_many($1, null)", await api.queue())
    assert error.value.sqlstate == "SL422"
