"""Tasks become messages of SQS, whatever happens between the send and the outcome.

Everything is counted at the end: each task has succeeded, and SQS has a message for each. A replica that is killed after SQS has
taken a message sends it again, so a standard queue may have more than one of a task; a FIFO queue never has.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from tests.crash.counts import note
from tests.sluices import SluiceProcess
from tests.sqs_server import Asked, Fault, SqsQueue, SqsServer
from tests.support import poll
from tests.wire.api import AT_ONCE, Api, fresh, good

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

FEW, MANY = 40, 10_000
KILL_EVERY = 2_000
AT_A_TIME = 32
LONG = [pytest.mark.long, pytest.mark.timeout(1200)]

StartSluice = Callable[..., Awaitable[SluiceProcess]]


async def queue_to(api: Api, sqs: SqsServer, outside: SqsQueue) -> str:
    """A queue whose tasks become messages of that one. So few at a time that moto's server answers each within its timeout: else
    all would be sent again and again, and none be answered in time."""
    handler = fresh("h")
    given = {**sqs.address(outside), "timeout_seconds": 5, "max_concurrency": AT_A_TIME}
    good(await api.put(f"/handlers/{handler}", json=given), 201)
    return await api.queue(handler, retry=AT_ONCE)


async def all_succeeded(api: Api, queue: str, count: int) -> bool:
    counts: dict[str, Any] = good(await api.get(f"/queues/{queue}/stats"))["counts"]
    assert not counts["dead"]
    return bool(counts["succeeded"] == count)


@pytest.mark.parametrize(
    ("fifo", "tasks"),
    [
        pytest.param(True, FEW, id="fifo"),
        pytest.param(True, MANY, marks=LONG, id="fifo, many"),
        pytest.param(False, MANY, marks=LONG, id="standard, many"),
    ],
)
async def test_replicas_are_killed_while_they_send(
    sqs: SqsServer, start_sluice: StartSluice, fifo: bool, tasks: int
) -> None:
    """Each kill strikes once SQS has taken messages whose answers the replica has not got yet."""
    began = time.monotonic()
    outside = sqs.queue(fifo=fifo)
    settings = {"SLUICE_LEASE_SECONDS": "5"}
    doomed, other = [await start_sluice(**settings) for _ in range(2)]
    api = Api(other.client, other.url)
    queue = await queue_to(api, sqs, outside)
    kills, wanted = 0, tasks // 4
    for start in range(0, tasks, 1_000):
        await api.bulk(queue, [{"payload": n} for n in range(start, min(tasks, start + 1_000))])
    while wanted < tasks:
        await poll(partial(_took, sqs, wanted), 60 + tasks / 20)
        await doomed.kill()
        kills += 1
        wanted += KILL_EVERY
        if wanted < tasks:
            doomed = await start_sluice(**settings)
    await poll(partial(all_succeeded, api, queue, tasks), 60 + tasks / 20, every_seconds=0.1)
    bodies = Counter(outside.bodies())
    assert bodies.keys() == {str(n) for n in range(tasks)}
    if fifo:
        assert bodies.total() == tasks
    note(
        f"SQS behind, {'FIFO' if fifo else 'standard'}: replicas killed",
        messages=bodies.total(),
        tasks=tasks,
        kills=kills,
        seconds=round(time.monotonic() - began, 1),
    )


def _took(sqs: SqsServer, count: int) -> bool:
    return sqs.times("SendMessage") >= count


async def test_answers_that_are_lost_are_one_message_of_a_fifo_queue(
    sqs: SqsServer, start_replica: Callable[..., Awaitable[Any]]
) -> None:
    """Every first send of a task is taken, and then answered with a failure, a refusal or nothing that is of SQS."""
    replica = await start_replica()
    api = Api(replica.client, replica.url)
    outside = sqs.queue(fifo=True)
    queue = await queue_to(api, sqs, outside)
    seen: Counter[str] = Counter()
    faults = [
        Fault.error(500, "InternalFailure"),
        Fault.error(403, "RequestThrottled"),
        Fault(200, b"<html>"),
        Fault(502, b"bad gateway"),
        Fault.document({"MessageId": None}),
    ]

    def lose(asked: Asked) -> Fault | None:
        task = asked.given["MessageDeduplicationId"]
        seen[task] += 1
        return faults[len(seen) % len(faults)] if seen[task] == 1 else None

    sqs.after = lose
    ids = await api.bulk(queue, [{"payload": n} for n in range(FEW)])
    await poll(partial(all_succeeded, api, queue, FEW), 60)
    assert seen == Counter(dict.fromkeys(ids, 2))
    assert Counter(outside.bodies()) == Counter(str(n) for n in range(FEW))
