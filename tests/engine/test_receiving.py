"""Tasks that come in from queues elsewhere: what becomes of each message, whatever fails."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import pytest

from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.queues import QueueDefinition
from app.domain.sources import MAX_DEAD_BYTES, SourceDefinition, SourceView
from app.domain.tasks import TaskFilters
from app.engine.sources import Sources
from app.runtime import alarms
from app.runtime.core import Core
from app.service import queues, sources, tasks
from app.sources.kinds import Message, SourceError
from app.store import replicas
from app.store import sources as store
from app.store.failures import Unavailable
from app.store.replicas import Load
from app.store.sources import SourceHealth
from tests import fake_sources
from tests.fake_sources import FakeQueue
from tests.support import poll

pytestmark = pytest.mark.anyio


class Replica:
    """A core with its loop of sources, and a heartbeat, as receivers of others look for."""

    def __init__(self, core: Core, elsewhere: dict[str, FakeQueue]) -> None:
        fake_sources.install(core, elsewhere)
        self.core = core
        self.loop = Sources(core)

    async def beat(self) -> None:
        core = self.core
        await replicas.beat(
            core.db,
            core.replica.id,
            core.replica.name,
            "all",
            "0",
            draining=False,
            deaf=False,
            load=Load(),
            connections=core.db.connections,
            max_payload_bytes=core.max_payload_bytes,
        )

    async def drain(self) -> None:
        self.loop.stop()
        await self.loop.stopped()


@pytest.fixture
async def elsewhere() -> FakeQueue:
    return FakeQueue()


@pytest.fixture
async def replica(core: Core, elsewhere: FakeQueue) -> AsyncIterator[Replica]:
    made = Replica(core, {"orders": elsewhere})
    await made.beat()
    yield made
    await made.drain()


@pytest.fixture
async def other(start_core: Callable[[], Awaitable[Core]], elsewhere: FakeQueue) -> AsyncIterator[Replica]:
    made = Replica(await start_core(), {"orders": elsewhere})
    await made.beat()
    yield made
    await made.drain()


async def define(core: Core, caller: Caller, queue: dict[str, Any] | None = None, **given: Any) -> None:
    await queues.put(core, caller, "in", msgspec.convert(queue or {}, QueueDefinition), ANY)
    document = fake_sources.definition("in", **given)
    await sources.put(core, caller, "orders", msgspec.convert(document, SourceDefinition), ANY)


async def shown(core: Core, caller: Caller) -> SourceView:
    return (await sources.get(core, caller, "orders"))[0]


async def found(core: Core, caller: Caller) -> list[Any]:
    page = await tasks.list_page(core, caller, TaskFilters(queue="in"), None, 200, True)
    return sorted(page.items, key=lambda task: task.id)


async def until(condition: Callable[[], Any]) -> None:
    await poll(condition)


async def test_each_message_becomes_a_task_and_is_acknowledged_after_it(
    replica: Replica, core: Core, caller: Caller, elsewhere: FakeQueue
) -> None:
    await define(core, caller, type="order", tags=["shop"], headers={"x-from": "shop"}, priority=5)
    keys = elsewhere.put(b'{"id": 1}', b' {"id":2} \n', headers={"x-tenant": "9", "host": "evil"})
    await replica.loop.tick()
    await until(lambda: elsewhere.acknowledged == keys)
    one, two = await found(core, caller)
    assert (bytes(one.payload), bytes(two.payload)) == (b'{"id": 1}', b'{"id":2}')
    assert one.idempotency_key == keys[0]
    assert (one.type, list(one.tags), one.priority) == ("order", ["shop"], 5)
    assert one.headers == {"x-from": "shop", "x-tenant": "9"}
    await until(lambda: _counts(core, caller, (2, 2, 0, 0, 0)))


async def _counts(core: Core, caller: Caller, wanted: tuple[int, ...]) -> bool:
    return tuple((await shown(core, caller)).state.counts) == wanted


async def test_a_message_that_comes_again_stays_one_task(
    replica: Replica, core: Core, caller: Caller, elsewhere: FakeQueue
) -> None:
    await define(core, caller)
    elsewhere.acknowledge_fails = SourceError("it has gone away", permanent=True)
    elsewhere.put(b"1", b"2")
    await replica.loop.tick()
    await until(lambda: len(elsewhere.hidden) == 2 and not elsewhere.waiting)
    await until(lambda: _counts(core, caller, (2, 2, 0, 0, 0)))
    elsewhere.acknowledge_fails = None
    elsewhere.bring_again()
    await until(lambda: len(elsewhere.acknowledged) == 2)
    assert len(await found(core, caller)) == 2
    await until(lambda: _counts(core, caller, (4, 2, 2, 0, 0)))


async def test_the_key_of_a_message_outlives_that_of_its_queue(
    replica: Replica, core: Core, caller: Caller, elsewhere: FakeQueue
) -> None:
    await define(core, caller, {"idempotency_seconds": 1})
    elsewhere.put(b"1")
    await replica.loop.tick()
    await until(lambda: len(elsewhere.acknowledged) == 1)
    seconds = await core.db.fetchval(
        "select extract(epoch from expires_at - clock_timestamp())::float8 from sluice.idempotency_keys"
    )
    assert 13.9 * 86_400 < seconds <= 14 * 86_400


@pytest.mark.ci
async def test_a_source_that_is_defined_anew_takes_a_message_it_knows_for_a_duplicate(
    replica: Replica, core: Core, caller: Caller, elsewhere: FakeQueue
) -> None:
    await define(core, caller)
    elsewhere.acknowledge_fails = SourceError("it has gone away", permanent=True)
    elsewhere.put(b"1")
    await replica.loop.tick()
    await until(lambda: _counts(core, caller, (1, 1, 0, 0, 0)))
    await define(core, caller, type="other")
    elsewhere.acknowledge_fails = None
    elsewhere.bring_again()
    await until(lambda: _ticked(replica, lambda: len(elsewhere.acknowledged) == 1))
    assert len(await found(core, caller)) == 1


async def _ticked(replica: Replica, condition: Callable[[], bool]) -> bool:
    await replica.loop.tick()
    return condition()


@pytest.mark.parametrize(
    ("body", "given", "payload"),
    [
        (b"plain", {}, b'{"invalid":"the body is not I-JSON: expected value at line 1 column 1","body":"plain"}'),
        (b"\xff\xfe", {}, b'{"invalid":"the body is not UTF-8 at byte 0","body_base64":"//4="}'),
        (b"plain", {"body": "text"}, b'"plain"'),
    ],
)
@pytest.mark.ci
async def test_a_body_that_is_not_json_is_wrapped_or_read_as_text(
    replica: Replica,
    core: Core,
    caller: Caller,
    elsewhere: FakeQueue,
    body: bytes,
    given: dict[str, Any],
    payload: bytes,
) -> None:
    await define(core, caller, **given)
    elsewhere.put(body)
    await replica.loop.tick()
    await until(lambda: len(elsewhere.acknowledged) == 1)
    [task] = await found(core, caller)
    assert bytes(task.payload) == payload
    assert task.state == "ready"


@pytest.mark.parametrize(
    ("body", "given", "queue", "error"),
    [
        (b"plain", {"on_invalid": "dead"}, {}, "the body is not I-JSON"),
        (b'"' + b"x" * 1_048_576 + b'"', {}, {}, "at most 1048576 are allowed"),
        (b'{"a": "b"}', {}, {"payload_schema": {"type": "array"}}, "array"),
        (b"{}", {"key_from": "/no"}, {"key": {"required": True}}, "key"),
        (b'{"\\u0000": 1}', {}, {"payload_schema": {"additionalProperties": {"type": "array"}}}, "array"),
    ],
)
@pytest.mark.ci
async def test_what_cannot_be_a_task_is_dead_with_its_bytes(
    replica: Replica,
    core: Core,
    caller: Caller,
    elsewhere: FakeQueue,
    body: bytes,
    given: dict[str, Any],
    queue: dict[str, Any],
    error: str,
) -> None:
    if "payload_schema" in queue:
        queue = {"payload_schema": msgspec.json.encode(queue["payload_schema"]).decode()}
    await define(core, caller, queue, **given)
    elsewhere.put(body)
    await replica.loop.tick()
    await until(lambda: len(elsewhere.acknowledged) == 1)
    [task] = await found(core, caller)
    assert (task.state, task.reason) == ("dead", "invalid_message")
    assert error in task.last_error
    content = await tasks.get(core, caller, task.id)
    kept = bytes(content.payload) if content.payload is not msgspec.UNSET else _decoded(content.payload_base64)
    assert kept == body
    await until(lambda: _counts(core, caller, (1, 1, 0, 1, 0)))


def _decoded(text: Any) -> bytes:
    return base64.b64decode(text)


@pytest.mark.ci
async def test_a_full_queue_keeps_messages_hidden_and_drops_none(
    replica: Replica, core: Core, caller: Caller, elsewhere: FakeQueue
) -> None:
    await define(core, caller, {"max_depth": 3})
    keys = elsewhere.put(*[b"%d" % n for n in range(5)])
    await replica.loop.tick()
    await until(lambda: elsewhere.acknowledged == keys[:3] and keys[4] in elsewhere.extended)
    await until(lambda: _in_flight(core, caller, 2))
    asked = len(elsewhere.asked)
    assert "is full" in ((await shown(core, caller)).state.last_error or "")
    await queues.put(core, caller, "in", QueueDefinition(), ANY)
    await until(lambda: elsewhere.acknowledged == keys)
    assert len(elsewhere.asked) >= asked
    assert [bytes(task.payload) for task in await found(core, caller)] == [b"%d" % n for n in range(5)]


async def _full(core: Core, caller: Caller, elsewhere: FakeQueue, acknowledged: int) -> bool:
    return len(elsewhere.acknowledged) == acknowledged and await _in_flight(core, caller, 4 - acknowledged)


async def _in_flight(core: Core, caller: Caller, count: int) -> bool:
    return (await shown(core, caller)).state.in_flight == count


@pytest.mark.ci
async def test_a_queue_that_is_full_again_and_again_is_no_failure_while_tasks_come_in(
    replica: Replica, core: Core, caller: Caller, elsewhere: FakeQueue
) -> None:
    await define(core, caller, {"max_depth": 1})
    elsewhere.put(*[b"%d" % n for n in range(4)])
    await replica.loop.tick()
    since = None
    for n in range(3):
        await until(partial(_full, core, caller, elsewhere, n + 1))
        state = (await shown(core, caller)).state
        assert state.failing_since is not None and (since is None or state.failing_since > since)
        since = state.failing_since
        [task] = [task for task in await found(core, caller) if task.state == "ready"]
        await tasks.cancel(core, caller, task.id)


@pytest.mark.ci
async def test_two_replicas_together_bring_no_more_than_max_outstanding(
    replica: Replica, other: Replica, core: Core, caller: Caller, elsewhere: FakeQueue
) -> None:
    await define(core, caller, max_outstanding=7)
    elsewhere.put(*[b"%d" % n for n in range(30)])
    await asyncio.gather(replica.loop.tick(), other.loop.tick())
    await until(lambda: len(elsewhere.acknowledged) == 7)
    await asyncio.sleep(0.3)
    assert len(await found(core, caller)) == 7
    for task in (await found(core, caller))[:4]:
        await tasks.cancel(core, caller, task.id)
    await until(lambda: len(elsewhere.acknowledged) == 11)
    await asyncio.sleep(0.2)
    assert len(elsewhere.acknowledged) == 11
    assert set((await shown(core, caller)).state.replicas) == {core.replica.name, other.core.replica.name}


async def test_a_drain_finishes_the_receive_under_way(
    replica: Replica, core: Core, caller: Caller, elsewhere: FakeQueue
) -> None:
    await define(core, caller)
    elsewhere.may_answer.clear()
    elsewhere.put(b"1", b"2")
    await replica.loop.tick()
    await until(lambda: elsewhere.receiving == 1)
    draining = asyncio.create_task(replica.drain())
    await asyncio.sleep(0.05)
    assert not draining.done()
    elsewhere.may_answer.set()
    await draining
    assert len(elsewhere.acknowledged) == 2
    assert len(await found(core, caller)) == 2
    assert elsewhere.closed == 1


async def test_no_receive_begins_once_a_drain_has_begun(
    replica: Replica, core: Core, caller: Caller, elsewhere: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even that of a round which has its room already: it would take 20 seconds more."""
    take_room = store.take_room

    async def draining_meanwhile(*args: Any) -> Any:
        room = await take_room(*args)
        replica.loop.stop()
        return room

    monkeypatch.setattr(store, "take_room", draining_meanwhile)
    await define(core, caller)
    elsewhere.put(b"1")
    await replica.loop.tick()
    await replica.loop.stopped()
    assert elsewhere.asked == []
    assert elsewhere.closed == 1


async def test_a_pause_gives_back_what_the_receive_under_way_brings(
    replica: Replica, core: Core, caller: Caller, elsewhere: FakeQueue
) -> None:
    await define(core, caller)
    elsewhere.may_answer.clear()
    keys = elsewhere.put(b"1")
    await replica.loop.tick()
    await until(lambda: elsewhere.receiving == 1)
    await sources.pause(core, caller, "orders")
    await replica.loop.tick()
    elsewhere.may_answer.set()
    await until(lambda: elsewhere.given_back == keys)
    assert await found(core, caller) == []
    await sources.resume(core, caller, "orders")
    await until(lambda: _ticked(replica, lambda: elsewhere.acknowledged == keys))


async def test_a_pause_at_another_replica_gives_back_what_comes_after_it(
    replica: Replica, core: Core, caller: Caller, elsewhere: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the poll of this one has not heard of it yet."""
    monkeypatch.setattr("app.engine.receiver.FRESH_SECONDS", 0.0)
    await define(core, caller)
    elsewhere.may_answer.clear()
    keys = elsewhere.put(b"1")
    await replica.loop.tick()
    await until(lambda: elsewhere.receiving == 1)
    await sources.pause(core, caller, "orders")
    elsewhere.may_answer.set()
    await until(lambda: elsewhere.closed == 1)
    assert elsewhere.given_back == keys
    assert await found(core, caller) == []


async def test_messages_of_a_group_share_a_key_and_keep_their_order(
    replica: Replica, core: Core, caller: Caller, elsewhere: FakeQueue
) -> None:
    await define(core, caller, {"key": {"ordered": True}})
    elsewhere.put(*[b"%d" % n for n in range(10)], group="customer-7")
    await replica.loop.tick()
    await until(lambda: len(elsewhere.acknowledged) == 10)
    brought = await found(core, caller)
    assert {task.key for task in brought} == {"customer-7"}
    assert [bytes(task.payload) for task in brought] == [b"%d" % n for n in range(10)]


@pytest.mark.ci
async def test_a_failing_source_is_told_of_and_tried_again(
    replica: Replica, core: Core, caller: Caller, elsewhere: FakeQueue
) -> None:
    await define(core, caller)
    elsewhere.fails = SourceError("access denied")
    elsewhere.put(b"1")
    await replica.loop.tick()
    tested = await sources.test(core, caller, "orders")
    assert tested.error == "access denied"
    await until(lambda: _error(core, caller, "access denied"))
    assert (await shown(core, caller)).state.failing_since is not None
    elsewhere.fails = None
    await until(lambda: len(elsewhere.acknowledged) == 1)
    await until(lambda: _works(core, caller))
    assert (await sources.test(core, caller, "orders")).error is None


async def _error(core: Core, caller: Caller, text: str) -> bool:
    return (await shown(core, caller)).state.last_error == text


async def _works(core: Core, caller: Caller) -> bool:
    return (await shown(core, caller)).state.failing_since is None


async def test_a_source_that_is_deleted_is_let_go_of(
    replica: Replica, core: Core, caller: Caller, elsewhere: FakeQueue
) -> None:
    await define(core, caller)
    await replica.loop.tick()
    await until(lambda: bool(elsewhere.asked))
    await sources.delete(core, caller, "orders", ANY)
    await until(lambda: elsewhere.closed == 1)
    await queues.delete(core, caller, "in", ANY)
    for table in ("source_states", "source_receivers", "source_tasks"):
        assert await core.db.fetchval(f"select count(*) from sluice.{table}") == 0


@pytest.mark.ci
async def test_messages_wait_while_the_database_is_away(
    replica: Replica, core: Core, caller: Caller, elsewhere: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = [True, True]
    submit_all = core.enqueueing.submit_all

    async def failing(entries: Any) -> Any:
        if away:
            away.pop()
            raise Unavailable("the database is away")
        return await submit_all(entries)

    monkeypatch.setattr(core.enqueueing, "submit_all", failing)
    await define(core, caller)
    keys = elsewhere.put(b"1", b"2")
    await replica.loop.tick()
    await until(lambda: elsewhere.acknowledged == keys)
    assert not away and set(elsewhere.extended) == set(keys)
    assert len(await found(core, caller)) == 2


@pytest.mark.ci
async def test_a_drain_while_the_queue_is_full_gives_the_messages_back(
    replica: Replica, core: Core, caller: Caller, elsewhere: FakeQueue
) -> None:
    await define(core, caller, {"max_depth": 1}, on_invalid="dead")
    keys = elsewhere.put(b"1", b"bad", b"3")
    await replica.loop.tick()
    await until(lambda: elsewhere.acknowledged == keys[:1])
    await until(lambda: _in_flight(core, caller, 2))
    elsewhere.lost = 1
    await replica.drain()
    assert elsewhere.given_back == keys[1:]
    assert (await shown(core, caller)).state.counts.lost == 1
    assert (await shown(core, caller)).state.in_flight == 0


@pytest.mark.ci
async def test_a_message_too_large_even_for_a_dead_task_stays_where_it_is(
    replica: Replica, core: Core, caller: Caller, elsewhere: FakeQueue
) -> None:
    await define(core, caller)
    large, small = elsewhere.put(b"x" * (MAX_DEAD_BYTES + 1), b"2")
    await replica.loop.tick()
    await until(lambda: elsewhere.acknowledged == [small])
    await until(lambda: _counts(core, caller, (2, 1, 0, 1, 0)))
    assert list(elsewhere.hidden) == [large]
    assert large in ((await shown(core, caller)).state.last_error or "")


@pytest.mark.ci
async def test_nothing_is_received_with_secrets_that_cannot_be_decrypted(
    replica: Replica, core: Core, caller: Caller, elsewhere: FakeQueue
) -> None:
    await define(core, caller)
    await core.db.fetch("update sluice.sources set sealed = 'x'")
    elsewhere.put(b"1")
    await replica.loop.tick()
    await until(lambda: _lost(core, caller))
    assert elsewhere.asked == []
    assert "PUT the source again" in ((await sources.test(core, caller, "orders")).error or "")
    await define(core, caller)
    await until(lambda: _ticked(replica, lambda: len(elsewhere.acknowledged) == 1))


async def _lost(core: Core, caller: Caller) -> bool:
    view = await shown(core, caller)
    return view.secrets_lost and "cannot be decrypted" in (view.state.last_error or "")


@pytest.mark.ci
async def test_a_receiver_outlives_an_error_of_its_kind(
    replica: Replica, core: Core, caller: Caller, elsewhere: FakeQueue
) -> None:
    await define(core, caller)
    elsewhere.fails = ValueError("a bug with a password")
    elsewhere.put(b"1")
    await replica.loop.tick()
    await until(lambda: _error(core, caller, "an internal error: ValueError"))
    elsewhere.fails = None
    await until(lambda: len(elsewhere.acknowledged) == 1)


@pytest.mark.ci
async def test_what_is_lost_at_the_source_is_counted_and_shown_with_the_lag(
    replica: Replica, core: Core, caller: Caller, elsewhere: FakeQueue
) -> None:
    await define(core, caller)
    elsewhere.lost = 3
    await replica.loop.tick()
    await until(lambda: _counts(core, caller, (0, 0, 0, 0, 3)))
    state = (await shown(core, caller)).state
    assert (state.lag, state.oldest_age_seconds, state.last_received_at) == (0, 1.5, None)
    scrape = core.metrics.render().decode()
    assert 'sluice_source_messages_total{outcome="lost",source="orders",tenant="default"} 3' in scrape


async def test_a_turn_to_measure_that_comes_while_messages_are_in_hand_is_taken(
    replica: Replica, core: Core, caller: Caller, elsewhere: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a receive that lasted, it is looked whether the source is as it was; that look may bring the turn."""
    monkeypatch.setattr("app.engine.receiver.FRESH_SECONDS", 0.0)
    await define(core, caller)
    elsewhere.may_answer.clear()
    elsewhere.put(b"1")
    await replica.loop.tick()
    await until(lambda: elsewhere.receiving == 1)
    assert (await shown(core, caller)).state.lag == 1, "written before the receive, which may take long"
    await core.db.fetch("update sluice.source_states set measured_at = measured_at - interval '1 hour' returning 1")
    elsewhere.may_answer.set()

    async def measured_again() -> bool:
        return (await shown(core, caller)).state.lag == 0

    await poll(measured_again)


def test_a_source_that_has_failed_for_minutes_raises_an_alarm() -> None:
    fine = SourceHealth("t", "fine", False, 5, 1.0, "earlier", None, 1000.0, 2)
    short = replace(fine, name="short", failing_seconds=200.0)
    stuck = replace(fine, name="stuck", failing_seconds=400.0, last_error="access denied")
    paused = replace(stuck, name="paused", paused=True)
    (alarm,) = alarms._source_alarms([fine, short, stuck, paused])
    assert (alarm["code"], alarm["tenant"], alarm["source"]) == ("source_stuck", "t", "stuck")
    assert "access denied" in alarm["message"]


async def test_what_a_source_says_that_no_text_can_hold_stops_nothing(
    replica: Replica, core: Core, caller: Caller, elsewhere: FakeQueue
) -> None:
    await define(core, caller)
    elsewhere.fails = SourceError("no\x00, not this" + "!" * 2_000)
    await replica.loop.tick()
    (receiver,) = replica.loop._receivers.values()
    await until(lambda: _error(core, caller, "no, not this" + "!" * 988))
    assert not receiver.ended
    elsewhere.fails = None
    elsewhere.waiting.append(Message(key="fake:\x00", body=b"1", handle="1"))
    elsewhere.put(b"2")
    await until(lambda: len(elsewhere.acknowledged) == 2)
    assert len(await found(core, caller)) == 2
