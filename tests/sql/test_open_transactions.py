"""A transaction that stays open holds up nobody, and what it commits late starts at once."""

import asyncio
import time
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from app.store import batches
from tests.handlers import Handler
from tests.sluices import Replica
from tests.sql.conftest import Connect
from tests.support import poll
from tests.wire.api import Api, good
from tests.wire.test_leases import say, take_one

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

ENQUEUE = "select sluice.enqueue($1, $2, $3)"


async def test_a_task_that_commits_late_is_delivered_at_once(session: Any, api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url, max_concurrency=10)
    transaction = session.transaction()
    await transaction.start()
    late = [
        str(await session.fetchval(ENQUEUE, queue, '"late"', options))
        for options in ("{}", '{"key": "a"}', '{"delay_seconds": 0.05}', '{"priority": -5}')
    ]
    early = [(await api.enqueue(queue, "early", **fields))["id"] for fields in ({}, {"key": "a"}, {"priority": 5})]
    for task_id in early:
        await api.until(task_id, "succeeded")
    assert (await api.get(f"/tasks/{late[0]}")).status_code == 404
    await transaction.commit()
    began = time.monotonic()
    for task_id in late:
        await api.until(task_id, "succeeded")
    assert time.monotonic() - began < 2  # a second, and a busy machine


async def test_one_notification_is_sent_per_transaction_and_none_is_needed(
    session: Any, connect: Connect, api: Api, handler: Handler, monkeypatch: pytest.MonkeyPatch, shared: Replica
) -> None:
    queue, heard = await api.queue_to(handler.url), []
    listener = await connect()
    await listener.add_listener("sluice", lambda *said: heard.append(said[3]))
    async with session.transaction():
        for n in range(5):
            async with session.transaction():
                await session.fetchval(ENQUEUE, queue, str(n), "{}")
    await poll(lambda: asyncio.sleep(0, any("arrived" in said for said in heard)))
    await listener.fetchval("select 1")
    assert sum("arrived" in said for said in heard) == 1
    monkeypatch.setattr(shared.sluice.engine._arrive, "wake_in", lambda seconds: None)
    monkeypatch.setattr(shared.sluice.engine, "_heard", lambda hint: None)
    began = time.monotonic()
    task_id = str(await session.fetchval(ENQUEUE, queue, "6", "{}"))
    await api.until(task_id, "succeeded")
    assert time.monotonic() - began < 3  # polls are a second apart


async def test_an_open_transaction_holds_up_nobody(session: Any, api: Api, handler: Handler) -> None:
    """Whatever it has enqueued: others enqueue, claim, pause, change and replace as if it were not there."""
    name = await api.handler(handler.url)
    own = await api.handler(handler.url)
    limit = await api.limit(max_concurrency=3)
    queue = await api.queue(name, max_depth=100, key={"max_concurrency": 5, "max_depth": 50})
    other = await api.queue()
    options = (
        "{}",
        '{"key": "k", "idempotency_key": "i", "unique_key": "u"}',
        f'{{"handler": "{own}", "limits": [{{"name": "{limit}"}}], "key": "k"}}',
        f'{{"callbacks": {{"succeeded": {{"queue": "{other}"}}}}, "delay_seconds": 3600}}',
    )
    async with session.transaction():
        for given in options:
            await session.fetchval(ENQUEUE, queue, "1", given)
        async with asyncio.timeout(10):
            for fields in (
                {},
                {"key": "k", "idempotency_key": "i2", "unique_key": "u2"},
                {"handler": own, "limits": [{"name": limit}], "key": "k"},
                {"callbacks": {"succeeded": {"queue": other}}},
            ):
                await api.until((await api.enqueue(queue, 2, **fields))["id"], "succeeded")
            good(await api.post(f"/queues/{queue}/pause"))
            good(await api.put(f"/queues/{queue}", json={"handler": name, "max_concurrency": 2}))
            good(await api.post(f"/queues/{queue}/resume"))
            good(await api.put(f"/handlers/{own}", json={"url": handler.url, "timeout_seconds": 5}))
            good(await api.put(f"/limits/{limit}", json={"max_concurrency": 4}))
            good(await api.post(f"/handlers/{own}/disable"))
            good(await api.post(f"/handlers/{own}/enable"))
            await api.until((await api.enqueue(queue, 2))["id"], "succeeded")


async def test_what_an_open_transaction_uses_cannot_be_deleted(session: Any, connect: Connect, api: Api) -> None:
    own, limit, called = await api.handler("http://127.0.0.1:9/"), await api.limit(max_concurrency=1), await api.queue()
    other = await api.limit(max_concurrency=1)
    queue = await api.queue(await api.handler("http://127.0.0.1:9/"))
    paths = {
        f"/queues/{queue}": "queue_in_use",
        f"/queues/{called}": "queue_in_use",
        f"/handlers/{own}": "handler_in_use",
        f"/limits/{limit}": "limit_in_use",
    }
    transaction = session.transaction()
    await transaction.start()
    await session.fetchval(
        ENQUEUE,
        queue,
        "1",
        f'{{"handler": "{own}", "limits": [{{"name": "{limit}"}}], "callbacks": {{"dead": {{"queue": "{called}"}}}}}}',
    )
    for path, code in paths.items():
        reply = await api.delete(path)
        assert (reply.status_code, reply.json()["code"]) == (409, code)
    assert (await api.delete(f"/limits/{other}")).status_code == 204
    await transaction.rollback()
    for path in paths:
        assert (await api.delete(path)).status_code == 204
    with pytest.raises(asyncpg.PostgresError, match="queue_not_found"):
        await session.fetchval(ENQUEUE, queue, "1", "{}")
    # a snapshot in which it still was
    queue = await api.queue()
    older = await connect()
    async with older.transaction(isolation="repeatable_read"):
        await older.fetchval("select 1 from pg_class limit 1")
        assert (await api.delete(f"/queues/{queue}")).status_code == 204
        with pytest.raises(asyncpg.SerializationError):
            await older.fetchval(ENQUEUE, queue, "1", "{}")


@pytest.mark.parametrize("field", ["idempotency_key", "unique_key"])
async def test_a_request_with_the_key_of_an_open_transaction_is_answered_and_delays_no_other(
    field: str, session: Any, api: Api
) -> None:
    queue, key = await api.queue(), f'{{"{field}": "k"}}'
    transaction = session.transaction()
    await transaction.start()
    task_id = str(await session.fetchval(ENQUEUE, queue, "1", key))

    def task() -> dict[str, Any]:
        """As clients send it that give every request an idempotency key of its own."""
        return {"payload": 1, "idempotency_key": uuid4().hex} | {field: "k"}

    async def same() -> Any:
        return await api.post(f"/queues/{queue}/tasks", json=task())

    async def atomic() -> Any:
        return await api.post(f"/queues/{queue}/tasks/bulk", json={"tasks": [task(), {"payload": 2}], "atomic": True})

    async def other(n: int) -> Any:
        return await api.post(f"/queues/{queue}/tasks", json={"payload": 1, field: f"other-{n}"})

    async with asyncio.timeout(10):
        replies = await asyncio.gather(*(same() for _ in range(8)), *(other(n) for n in range(40)))
        assert [reply.status_code for reply in replies] == [503] * 8 + [201] * 40
        assert replies[0].headers["retry-after"] == "1"
        began = time.monotonic()
        replies = await asyncio.gather(*(same() for _ in range(8)), *(other(n) for n in range(40, 80)))
        assert [reply.status_code for reply in replies] == [503] * 8 + [201] * 40
        assert time.monotonic() - began < 2
        began = time.monotonic()
        assert [(await send()).status_code for send in (same, atomic) * 3] == [503] * 6
        assert time.monotonic() - began < 1.5, "each waits for half a second"
        bulk = good(
            await api.post(f"/queues/{queue}/tasks/bulk", json={"tasks": [{"payload": 1, field: "k"}, {"payload": 2}]})
        )
    assert [result["status"] for result in bulk["results"]] == [503, 201]
    await transaction.commit()
    assert good(await same())["id"] == task_id


async def test_nobody_waits_behind_a_change_of_a_task_that_an_open_transaction_holds(session: Any, api: Api) -> None:
    """A retry holds the queue's lock; whoever pauses the queue would wait for it, and every enqueue behind that."""
    queue = await api.queue()
    kept = await api.enqueue(queue, 1, unique_key="kept")
    again = await api.enqueue(queue, 1, unique_key="again")
    good(await api.post(f"/tasks/{again['id']}/cancel"))
    transaction = session.transaction()
    await transaction.start()
    await session.fetchval(ENQUEUE, queue, "2", '{"unique_key": "kept", "on_duplicate": "replace"}')
    await session.fetchval(ENQUEUE, queue, "2", '{"unique_key": "again"}')
    async with asyncio.timeout(10):
        *held, paused, added = await asyncio.gather(
            api.post(f"/tasks/{again['id']}/retry"),
            api.post(f"/tasks/{kept['id']}/retry"),
            api.post(f"/tasks/{kept['id']}/cancel"),
            api.client.patch(f"/tasks/{kept['id']}", json={"priority": 1}),
            api.post(f"/queues/{queue}/pause"),
            api.post(f"/queues/{queue}/tasks", json={"payload": 1}),
        )
        held.append(await api.post(f"/queues/{queue}/purge"))
    assert [(reply.status_code, reply.json()["code"]) for reply in held] == [(503, "unavailable")] * 5
    assert all("in progress" in reply.json()["detail"] for reply in held)
    assert (paused.status_code, added.status_code) == (200, 201)
    await transaction.rollback()
    await api.until(kept["id"], "cancelled")


async def test_a_running_task_with_the_same_unique_key_is_not_held(session: Any, api: Api) -> None:
    """It cannot be replaced, so the open transaction has no use for its row; its outcome is settled in a group with others."""
    queue = await api.queue()
    await api.enqueue(queue, 1, unique_key="u")
    leased = await take_one(api, queue)
    async with session.transaction(), asyncio.timeout(5):
        same = await session.fetchval(ENQUEUE, queue, "2", '{"unique_key": "u", "on_duplicate": "replace"}')
        assert str(same) == leased["id"]
        good(await say(api, leased, "complete"))


async def test_a_late_outcome_of_a_task_that_is_held_delays_no_other(session: Any, api: Api) -> None:
    """It would wait for the row, and with it the group of outcomes that it is in."""
    queue, other = await api.queue(), await api.queue()
    await api.enqueue(queue, 1, unique_key="u")
    late = await take_one(api, queue, lease_seconds=1)
    await api.until(late["id"], "ready")
    await api.enqueue(other, 2)
    leased = await take_one(api, other)
    async with session.transaction(), asyncio.timeout(5):
        await session.fetchval(ENQUEUE, queue, "2", '{"unique_key": "u", "on_duplicate": "replace"}')
        replies = await asyncio.gather(say(api, late, "complete"), say(api, leased, "complete"))
    assert [reply.status_code for reply in replies] == [409, 200]
    assert replies[0].json()["code"] == "lease_lost"


async def test_a_follow_up_with_the_key_of_an_open_transaction_holds_up_no_enqueue(session: Any, api: Api) -> None:
    """Whoever completes with it again and again would have the lock of the queue's depth nearly all the time."""
    queue, bounded = await api.queue(), await api.queue(max_depth=100)
    for n in range(6):
        await api.enqueue(queue, n)
    leased = [await take_one(api, queue) for _ in range(6)]

    async def complete(n: int) -> Any:
        task = {"queue": bounded, "idempotency_key": f"f{n}", "unique_key": "u", "payload": n}
        return await say(api, leased[n], "complete", {"tasks": [task]})

    async with session.transaction(), asyncio.timeout(10):
        await session.fetchval(ENQUEUE, bounded, "1", '{"unique_key": "u"}')
        assert (await complete(0)).status_code == 503
        began = time.monotonic()
        *held, _ = await asyncio.gather(*(complete(n) for n in range(6)), api.enqueue(bounded, 1))
        assert [reply.status_code for reply in held] == [503] * 6
        assert all("in progress" in reply.json()["detail"] for reply in held)
        assert time.monotonic() - began < 1.5, "each waits for half a second, one after the other"
    for n in range(6):
        good(await complete(n))


async def test_a_cancelled_batch_whose_task_is_held_holds_up_no_other(session: Any, api: Api, shared: Replica) -> None:
    queue = await api.queue()
    tasks = [{"payload": 1, "unique_key": "u"}, {"payload": 2}]
    batch = good(await api.post("/batches", json={"queue": queue, "tasks": tasks}), 201)
    other = good(await api.post("/batches", json={"queue": queue, "tasks": [{"payload": 3}]}), 201)
    replace = '{"unique_key": "u", "on_duplicate": "replace"}'

    async def cancelled(batch_id: str, tasks: int) -> bool:
        found = good(await api.get(f"/batches/{batch_id}"))
        return bool(found["counts"]["cancelled"] == tasks)

    core = shared.sluice.core
    tenant_id = await core.db.fetchval("select id from sluice.tenants where name = 'default'")

    async def supersede(batch: dict[str, Any]) -> None:
        """As the next run of a schedule does."""
        await batches.close(core.db, tenant_id, batch["id"], "superseded")
        core.signals.batch_cancelled()

    async with session.transaction(), asyncio.timeout(8):
        await session.fetchval(ENQUEUE, queue, "2", replace)
        await supersede(batch)
        await poll(lambda: cancelled(batch["id"], 1))
        await supersede(other)
        await poll(lambda: cancelled(other["id"], 1), 5)
        assert good(await api.post(f"/batches/{batch['id']}/cancel"))["cancelled_at"], "the engines go on with it"
    await poll(lambda: cancelled(batch["id"], 2))


async def test_racing_over_one_key_leaves_one_task(connect: Connect, api: Api) -> None:
    queue = await api.queue()
    sessions = [await connect() for _ in range(4)]
    for n in range(10):
        key = f"race-{n}"

        async def in_sql(session: Any, key: str = key) -> str:
            async with session.transaction():
                return str(await session.fetchval(ENQUEUE, queue, '"p"', f'{{"idempotency_key": "{key}"}}'))

        async def over_http(key: str = key) -> str:
            reply = await api.post(f"/queues/{queue}/tasks", json={"payload": "p", "idempotency_key": key})
            assert reply.status_code in (200, 201), reply.text
            task_id: str = reply.json()["id"]
            return task_id

        found = await asyncio.gather(*(in_sql(session) for session in sessions), *(over_http() for _ in range(4)))
        assert len(set(found)) == 1
    assert len(await api.pages("/tasks", queue=queue)) == 10


async def test_two_transactions_that_cross_do_not_deadlock(connect: Connect, api: Api) -> None:
    a, b = await api.queue(max_depth=10), await api.queue(max_depth=10)
    one, other = await connect(), await connect()
    async with asyncio.timeout(5), one.transaction(), other.transaction():
        for session, queue in ((one, a), (other, b), (one, b), (other, a)):
            await session.fetchval(ENQUEUE, queue, "1", '{"key": "k"}')


async def test_what_is_enqueued_in_sql_is_counted_once(session: Any, api: Api, shared: Replica) -> None:
    queue = await api.queue()
    ids = await session.fetch(
        "select sluice.enqueue_many($1, array(select jsonb_build_object('payload', n) from generate_series(1, 50) n))",
        queue,
    )
    assert len(ids) == 50
    tasks = await api.pages("/tasks", queue=queue, include="payload")
    assert [
        task["payload"] for task in sorted(tasks, key=lambda task: [str(row[0]) for row in ids].index(task["id"]))
    ] == [*range(1, 51)]
    db = shared.sluice.core.db

    async def counted() -> bool:
        return bool(
            await db.fetchval(
                "select coalesce(sum(m.enqueued), 0) = 50 from sluice.queue_minutes m join sluice.queues q on q.id = m.queue_id"
                " where q.name = $1",
                queue,
            )
        )

    await poll(counted)
    assert not await db.fetchval("select count(*) from sluice.arrivals")


async def test_depths_are_refused_when_they_are_full(session: Any, api: Api) -> None:
    queue = await api.queue(max_depth=3, key={"max_depth": 2})
    for n in range(2):
        await session.fetchval(ENQUEUE, queue, str(n), '{"key": "k"}')
    for options, state in (('{"key": "k"}', "SL430"), ("{}", None), ("{}", "SL429")):
        if state is None:
            await session.fetchval(ENQUEUE, queue, "1", options)
            continue
        with pytest.raises(asyncpg.PostgresError) as error:
            await session.fetchval(ENQUEUE, queue, "1", options)
        assert error.value.sqlstate == state


async def test_what_needs_the_service_is_refused_with_the_reason(session: Any, api: Api) -> None:
    handler = await api.handler("http://127.0.0.1:9/", targets="any")
    queue, schemas = await api.queue(handler), await api.queue(payload_schema={"type": "object"})
    for name, options, why in (
        (schemas, "{}", "payload_schema"),
        (queue, '{"target": {"url": "http://127.0.0.1:9/x"}}', "decided by the service"),
    ):
        with pytest.raises(asyncpg.PostgresError, match=why) as error:
            await session.fetchval(ENQUEUE, name, "{}", options)
        assert error.value.sqlstate == "SL423"
