"""Messages of SQS become one task each, whatever happens between the receive and the delete.

Everything is counted at the end: at the server of SQS, which must have nothing left, and in the database, which must have one task
per message. `python -m tests.crash.counts` runs the long forms and writes what they came to into docs/reference.
"""

import itertools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import asyncpg
import pytest

from tests.crash.conftest import payloads
from tests.crash.counts import note
from tests.sluices import Replica, SluiceProcess
from tests.sqs_server import Asked, Fault, SqsQueue, SqsServer
from tests.support import poll
from tests.wire.api import Api, fresh, good

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

FEW, MANY = 80, 10_000
SECONDS = 60.0
LONG = [pytest.mark.long, pytest.mark.timeout(1200)]

StartSluice = Callable[..., Awaitable[SluiceProcess]]
StartReplica = Callable[..., Awaitable[Replica]]


@dataclass
class Bridge:
    """A queue of SQS, the source that reads it, and the queue that its tasks are in."""

    sqs: SqsServer
    outside: SqsQueue
    rows: "asyncpg.Connection[Any]"
    source: str
    queue: str

    async def tasks(self) -> Counter[bytes]:
        return await payloads(self.rows, self.queue)

    async def each_once(self, count: int) -> None:
        """Wait until SQS has nothing left, and hold that there is one task per message."""
        await poll(lambda: not self.outside.left(), SECONDS + count / 20, every_seconds=0.1)
        assert await self.tasks() == Counter(str(n).encode() for n in range(count))


@pytest.fixture
def make_bridge(sqs: SqsServer, rows: "asyncpg.Connection[Any]") -> Callable[..., Awaitable[Bridge]]:
    """Makes a queue of SQS and a source that reads it, with further fields of the source."""

    async def make(
        api: Api, *, outside: SqsQueue | None = None, queue: dict[str, Any] | None = None, **fields: Any
    ) -> Bridge:
        outside = outside or sqs.queue()
        inside, source = await api.queue(**(queue or {})), fresh("s")
        given = {"queue": inside, "max_outstanding": 10_000, "visibility_seconds": 10, **sqs.address(outside), **fields}
        good(await api.put(f"/sources/{source}", json=given), 201)
        return Bridge(sqs, outside, rows, source, inside)

    return make


MakeBridge = Callable[..., Awaitable[Bridge]]


def fill(queue: SqsQueue, count: int) -> None:
    for n in range(count):
        queue.send(str(n))


def has_at_most(queue: SqsQueue, count: int) -> bool:
    return len(queue.left()) <= count


class Killer:
    """Kills a replica in the middle of one of its requests to SQS, once, and lets the test know."""

    def __init__(self, sqs: SqsServer, pid: int, operation: str, *, carried_out: bool) -> None:
        self.struck = threading.Event()
        self._pid, self._operation = pid, operation
        if carried_out:
            sqs.after = self._strike
        else:
            sqs.before = self._strike

    def _strike(self, asked: Asked) -> Fault | None:
        if asked.operation != self._operation or self.struck.is_set():
            return None
        os.kill(self._pid, signal.SIGKILL)
        self.struck.set()
        return Fault.error(500, "InternalFailure")


@pytest.mark.parametrize(
    ("operation", "carried_out"),
    [("ReceiveMessage", True), ("DeleteMessageBatch", False), pytest.param("DeleteMessageBatch", True, marks=LONG)],
    ids=["before it has the messages", "between the commit and the delete", "before it knows of the delete"],
)
async def test_a_replica_is_killed_in_the_middle_of_its_work(
    sqs: SqsServer,
    start_sluice: StartSluice,
    start_replica: StartReplica,
    make_bridge: MakeBridge,
    operation: str,
    carried_out: bool,
) -> None:
    doomed = await start_sluice()
    killer = Killer(sqs, doomed.pid, operation, carried_out=carried_out)
    outside = sqs.queue()
    fill(outside, 30)
    bridge = await make_bridge(Api(doomed.client, doomed.url), outside=outside)
    await poll(killer.struck.is_set, 30)
    await doomed.ended()
    left = len(outside.left())
    assert left == (20 if operation == "DeleteMessageBatch" and carried_out else 30)

    replica = await start_replica()
    outside.show_again()  # what SQS does when the visibility timeout ends
    await bridge.each_once(30)
    source = good(await replica.client.get(f"/sources/{bridge.source}"))
    assert source["duplicates"] == (10 if operation == "DeleteMessageBatch" and not carried_out else 0)


@pytest.mark.parametrize("messages", [pytest.param(MANY, marks=LONG)])
async def test_replicas_are_killed_again_and_again(
    sqs: SqsServer, start_sluice: StartSluice, make_bridge: MakeBridge, messages: int
) -> None:
    """Visibility timeouts end at each kill, so that what the other replica holds comes twice as well."""
    kills, began = 2 + messages // 1000, time.monotonic()
    outside = sqs.queue()
    fill(outside, messages)
    replicas = [await start_sluice() for _ in range(2)]
    bridge = await make_bridge(Api(replicas[0].client, replicas[0].url), outside=outside)
    for number in range(kills):
        wanted = messages - (number + 1) * messages // (kills + 1)
        await poll(partial(has_at_most, outside, wanted), SECONDS + messages / 20, every_seconds=0.02)
        doomed = number % len(replicas)
        await replicas[doomed].kill()
        outside.show_again()
        replicas[doomed] = await start_sluice()

    async def all_gone() -> bool:
        outside.show_again()
        return not outside.left()

    await poll(all_gone, SECONDS, every_seconds=1)
    await bridge.each_once(messages)
    note(
        "SQS in front: replicas killed",
        messages=messages,
        tasks=(await bridge.tasks()).total(),
        kills=kills,
        receives=sqs.messages_received,
        seconds=round(time.monotonic() - began, 1),
    )


@pytest.mark.parametrize("messages", [FEW, pytest.param(MANY, marks=LONG)])
async def test_nothing_is_dropped_while_the_queue_is_full(
    sqs: SqsServer, start_replica: StartReplica, make_bridge: MakeBridge, messages: int
) -> None:
    """Polling stops, and what was received stays hidden for longer than its visibility timeout, until there is room."""
    began = time.monotonic()
    replicas = [await start_replica() for _ in range(2)]
    api = Api(replicas[0].client, replicas[0].url)
    outside = sqs.queue()
    fill(outside, messages)
    bridge = await make_bridge(api, outside=outside, queue={"max_depth": 25})

    async def is_full() -> bool:
        return (await bridge.tasks()).total() == 25 and sqs.times("ChangeMessageVisibilityBatch") >= 2

    await poll(is_full, 60, every_seconds=0.1)
    polls = sqs.times("ReceiveMessage")
    assert polls <= 25 // 10 + 1 + len(replicas)
    hidden = outside.hidden()
    assert 0 < hidden <= 10 * len(replicas)
    assert "full" in good(await api.get(f"/sources/{bridge.source}"))["last_error"]

    receives: Counter[int] = Counter()
    while receives.total() < messages:
        leased = good(await api.post(f"/queues/{bridge.queue}/leases", json={"max_tasks": 25, "wait_seconds": 20}))
        assert leased["tasks"], f"no task came for 20 s: {await bridge.tasks()}, {outside.left()}"
        for task in leased["tasks"]:
            receives[task["payload"]] += 1
            headers = {"sluice-lease-token": task["lease_token"]}
            good(await api.post(f"/tasks/{task['id']}/complete", json={}, headers=headers))
    assert receives == Counter(range(messages))
    await bridge.each_once(messages)
    note(
        "SQS in front: the queue full",
        messages=messages,
        tasks=(await bridge.tasks()).total(),
        kills=0,
        receives=sqs.messages_received,
        seconds=round(time.monotonic() - began, 1),
    )


async def test_messages_that_come_many_times_are_one_task_each(
    sqs: SqsServer, start_replica: StartReplica, make_bridge: MakeBridge
) -> None:
    """The server says that it has deleted them, and has not: all of them come again, to three replicas at the same time."""
    replicas = [await start_replica() for _ in range(3)]
    outside = sqs.queue()
    fill(outside, 100)
    deletes = itertools.count(1)

    def forgets(asked: Asked) -> Fault | None:
        if asked.operation != "DeleteMessageBatch" or next(deletes) > 20:
            return None
        outside.show_again()
        return Fault.document({"Successful": [{"Id": entry["Id"]} for entry in asked.given["Entries"]]})

    sqs.before = forgets
    bridge = await make_bridge(Api(replicas[0].client, replicas[0].url), outside=outside)
    await bridge.each_once(100)

    async def counted() -> dict[str, Any] | None:
        source: dict[str, Any] = good(await replicas[0].client.get(f"/sources/{bridge.source}"))
        return source if source["received"] == sqs.messages_received else None

    source = await poll(counted)
    assert source["enqueued"] == 100
    assert source["duplicates"] == source["received"] - 100 >= 100


async def test_credentials_that_end_are_told_and_new_ones_go_on(
    sqs: SqsServer, start_replica: StartReplica, make_bridge: MakeBridge
) -> None:
    replica = await start_replica()
    api = Api(replica.client, replica.url)
    outside = sqs.queue()
    fill(outside, 20)
    first, second = (sqs.user("sqs:*") for _ in range(2))

    def end_after_two(asked: Asked) -> Fault | None:
        if asked.operation == "DeleteMessageBatch":
            sqs.end_credentials(first["access_key_id"])
        return None

    sqs.before = end_after_two
    with sqs.guarded():
        bridge = await make_bridge(api, outside=outside, credentials=first)

        async def told() -> str | None:
            error = good(await api.get(f"/sources/{bridge.source}"))["last_error"]
            return error if error and "token" in error else None

        error = await poll(told, 30)
        assert first["secret_access_key"] not in error
        assert (await bridge.tasks()).total() == 10 and len(outside.left()) == 20
        sqs.before = lambda asked: None
        shown = good(await api.get(f"/sources/{bridge.source}"))
        assert "credentials" not in shown or shown["credentials"] != first
        given = {"queue": bridge.queue, **sqs.address(outside), "credentials": second}
        good(await api.put(f"/sources/{bridge.source}", json=given))
        outside.show_again()
        await bridge.each_once(20)
    outside.send("20")  # ends the poll under way, which is a long one: requests that are signed are not made shorter
    await bridge.each_once(21)


POISON = [
    "not JSON",
    "{",
    "NaN",
    '"\\ud800"',
    '{"a": 1, "a": 2}',
    "[" * 200 + "]" * 200,
    "\x00\x01",
    "\U0001f4a3" * 10,
    " ",
    "x" * 1_048_576,
    "1" * 400,
    "null",
]


async def test_bodies_that_are_poison_end_as_tasks(
    sqs: SqsServer, start_replica: StartReplica, make_bridge: MakeBridge
) -> None:
    """Whatever the source says of bodies: none is received again and again, none is lost, and none holds up those behind it."""
    replica = await start_replica(max_payload_bytes=262_144)
    api = Api(replica.client, replica.url)
    odd = {
        "webhook-id": {"DataType": "String", "StringValue": "mine"},
        "lines": {"DataType": "String", "StringValue": "a\r\nb: c"},
        "long": {"DataType": "String", "StringValue": "v" * 10_000},
        "correlation_id": {"DataType": "String", "StringValue": "\x00"},
        "fine": {"DataType": "String", "StringValue": "kept"},
    }
    bridges: list[Bridge] = []
    for body, on_invalid in itertools.product(("json", "text", "base64"), ("wrap", "dead")):
        outside = sqs.queue(MaximumMessageSize="1048576")
        for text in POISON:
            outside.send(text, odd, trace="Root=garbage;Parent=;;;")
        bridges.append(await make_bridge(api, outside=outside, body=body, on_invalid=on_invalid))
    await poll(lambda: not any(bridge.outside.left() for bridge in bridges), 30)
    for bridge in bridges:
        tasks = await api.pages("/tasks", queue=bridge.queue)
        assert len(tasks) == len(POISON)
        assert {task["state"] for task in tasks} <= {"ready", "dead"}
        assert all(task["headers"] == {"fine": "kept", "x-amzn-trace-id": "Root=garbage;Parent=;;;"} for task in tasks)
        assert {task["reason"] for task in tasks if task["state"] == "dead"} <= {"invalid_message"}
        dead = sum(task["state"] == "dead" for task in tasks)
        source = good(await api.get(f"/sources/{bridge.source}"))
        wraps = source["on_invalid"] == "wrap"
        assert dead == 1 if wraps else dead >= 1, "only what is too large is dead where bodies are wrapped"
        assert source["received"] == len(POISON), "nothing came twice"


async def test_groups_of_a_fifo_queue_keep_their_order(
    sqs: SqsServer, start_replica: StartReplica, make_bridge: MakeBridge
) -> None:
    """Three replicas, two groups, and a queue that is full most of the time."""
    replicas = [await start_replica() for _ in range(3)]
    api = Api(replicas[0].client, replicas[0].url)
    outside = sqs.queue(fifo=True)
    for n in range(60):
        outside.send(str(n), group="ab"[n % 2])
    bridge = await make_bridge(api, outside=outside, queue={"max_depth": 7, "key": {"ordered": True}})
    order: dict[str, list[int]] = {"a": [], "b": []}
    while len(order["a"]) + len(order["b"]) < 60:
        leased = good(await api.post(f"/queues/{bridge.queue}/leases", json={"max_tasks": 10, "wait_seconds": 20}))
        assert leased["tasks"], "no task came for 20 s"
        for task in leased["tasks"]:
            order[task["key"]].append(task["payload"])
            headers = {"sluice-lease-token": task["lease_token"]}
            good(await api.post(f"/tasks/{task['id']}/complete", json={}, headers=headers))
    assert order == {"a": list(range(0, 60, 2)), "b": list(range(1, 60, 2))}
    await bridge.each_once(60)


async def test_a_replica_that_drains_leaves_nothing_hidden(
    sqs: SqsServer, start_sluice: StartSluice, start_replica: StartReplica, make_bridge: MakeBridge
) -> None:
    """Its open poll ends with messages, which it enqueues although it has been told to stop."""
    draining = await start_sluice()
    outside = sqs.queue()
    bridge = await make_bridge(Api(draining.client, draining.url), outside=outside)
    await poll(lambda: sqs.times("ReceiveMessage") == 1)
    draining.process.terminate()
    fill(outside, 5)
    assert await draining.ended() == 0
    assert outside.hidden() == 0
    replica = await start_replica()
    await bridge.each_once(5)
    assert good(await replica.client.get(f"/sources/{bridge.source}"))["duplicates"] == 0
