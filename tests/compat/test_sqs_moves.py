"""Moving the messages of a dead-letter queue on the SQS wire."""

import asyncio
from typing import Any

import pytest

from tests.compat.sqs import Sqs
from tests.compat.test_sqs_queues import arn, attributes, create, fresh, name_of, redrive
from tests.wire.api import Api, good

pytestmark = pytest.mark.anyio


class Dead:
    """A dead-letter queue with messages of two others."""

    def __init__(self, sqs: Sqs, api: Api) -> None:
        self.sqs, self.api = sqs, api
        self.name, self.sources = fresh(), [fresh(), fresh()]

    async def fill(self, each: int = 2) -> list[str]:
        """Let this many messages of each source die; return the ids of the tasks in the dead-letter queue."""
        await create(self.sqs, self.name)
        for source in self.sources:
            await create(self.sqs, source, RedrivePolicy=redrive(self.name))
            await self.api.bulk(source, [{"payload": [source, n]} for n in range(each)])
            await self.let_die(source)
        return [task["id"] for task in await self.waiting(self.name)]

    async def let_die(self, queue: str) -> None:
        leased = good(await self.api.post(f"/queues/{queue}/leases", json={"max_tasks": 100}))["tasks"]
        for task in leased:
            given, token = {"error": "no", "retryable": False}, {"sluice-lease-token": task["lease_token"]}
            good(await self.api.post(f"/tasks/{task['id']}/fail", json=given, headers=token))

    async def waiting(self, queue: str) -> list[dict[str, Any]]:
        """The tasks that wait in a queue, oldest first."""
        listed = good(await self.api.get("/tasks", params={"queue": queue, "state": "ready", "include": "payload"}))
        found: list[dict[str, Any]] = listed["items"][::-1]
        return found

    async def start(self, **given: Any) -> str:
        found = await self.sqs.call("StartMessageMoveTask", SourceArn=arn(self.name), **given)
        handle: str = found["TaskHandle"]
        return handle

    async def latest(self) -> dict[str, Any]:
        (found,) = (await self.sqs.call("ListMessageMoveTasks", SourceArn=arn(self.name)))["Results"]
        task: dict[str, Any] = found
        return task


@pytest.fixture
def dead(sqs: Sqs, api: Api) -> Dead:
    return Dead(sqs, api)


async def test_messages_go_back_to_the_queues_that_they_came_from(dead: Dead) -> None:
    ids = await dead.fill()
    await dead.start()
    for source in dead.sources:
        found = await dead.waiting(source)
        assert sorted(task["payload"] for task in found) == [[source, 0], [source, 1]]
        assert all(task["attempt"] == 0 and task["parent"] in ids and task["expires_at"] for task in found)
    for task_id in ids:
        task = good(await dead.api.get(f"/tasks/{task_id}"))
        assert (task["state"], task["reason"]) == ("cancelled", "superseded")
    moved = await dead.latest()
    assert moved.pop("StartedTimestamp") > 1_600_000_000_000
    assert moved == {
        "Status": "COMPLETED",
        "SourceArn": arn(dead.name),
        "ApproximateNumberOfMessagesMoved": 4,
        "ApproximateNumberOfMessagesToMove": 4,
    }


async def test_messages_go_to_the_queue_that_is_named_in_their_order(dead: Dead) -> None:
    await dead.fill(each=5)
    before = [task["payload"] for task in await dead.waiting(dead.name)]
    target = fresh()
    await create(dead.sqs, target)
    await dead.start(DestinationArn=arn(target), MaxNumberOfMessagesPerSecond=500)
    leased = good(await dead.api.post(f"/queues/{target}/leases", json={"max_tasks": 100}))["tasks"]
    assert [task["payload"] for task in leased] == before
    moved = await dead.latest()
    assert (moved["DestinationArn"], moved["MaxNumberOfMessagesPerSecond"]) == (arn(target), 500)


async def test_a_message_in_flight_stays_and_the_move_says_so(dead: Dead) -> None:
    await dead.fill(each=1)
    good(await dead.api.post(f"/queues/{dead.name}/leases", json={"max_tasks": 1}))
    target = fresh()
    await create(dead.sqs, target)
    await dead.start(DestinationArn=arn(target))
    assert len(await dead.waiting(target)) == 1
    assert (await attributes(dead.sqs, await create(dead.sqs, dead.name)))[
        "ApproximateNumberOfMessagesNotVisible"
    ] == "1"


@pytest.mark.ci
async def test_a_message_whose_source_is_gone_stays_and_the_move_has_failed(dead: Dead) -> None:
    await dead.fill(each=1)
    gone, left = dead.sources
    await dead.sqs.call("DeleteQueue", QueueUrl=await create(dead.sqs, gone, RedrivePolicy=redrive(dead.name)))
    await dead.start()
    moved = await dead.latest()
    assert (moved["Status"], moved["ApproximateNumberOfMessagesMoved"]) == ("FAILED", 1)
    assert "deleted" in moved["FailureReason"]
    assert [task["payload"][0] for task in await dead.waiting(dead.name)] == [gone]
    assert [task["payload"][0] for task in await dead.waiting(left)] == [left]


@pytest.mark.ci
async def test_a_message_may_die_and_be_moved_back_any_number_of_times(dead: Dead) -> None:
    await dead.fill(each=1)
    for _ in range(9):  # a chain of callbacks ends after eight
        await dead.start()
        for source in dead.sources:
            await dead.let_die(source)
    assert len(await dead.waiting(dead.name)) == 2


async def test_one_move_at_a_time_runs_until_it_is_cancelled(dead: Dead) -> None:
    await dead.fill(each=3)
    started = await asyncio.gather(
        *(
            dead.sqs.send("StartMessageMoveTask", b'{"SourceArn":"%s","MaxNumberOfMessagesPerSecond":1}' % name)
            for name in [arn(dead.name).encode()] * 4
        )
    )
    assert sorted(reply.status_code for reply in started) == [200, 400, 400, 400]
    moving = await dead.latest()
    assert moving["Status"] == "RUNNING"
    cancelled = await dead.sqs.call("CancelMessageMoveTask", TaskHandle=moving["TaskHandle"])
    assert 0 < cancelled["ApproximateNumberOfMessagesMoved"] < 6
    assert (await dead.latest())["Status"] == "CANCELLED"
    for handle in (moving["TaskHandle"], "garbage", "0" * 36):
        await dead.sqs.refused("CancelMessageMoveTask", "ResourceNotFoundException", TaskHandle=handle)


async def test_only_a_dead_letter_queue_is_a_source(sqs: Sqs) -> None:
    url, fifo = await create(sqs), fresh(".fifo")
    await create(sqs, fifo, FifoQueue="true")
    source = arn(name_of(url))
    assert "Dead Letter" in await sqs.refused("StartMessageMoveTask", "InvalidParameterValue", SourceArn=source)
    await sqs.refused("StartMessageMoveTask", "InvalidParameterValue", SourceArn=source, DestinationArn=source)
    await sqs.refused("StartMessageMoveTask", "InvalidParameterValue", SourceArn=source, DestinationArn=arn(fifo))
    await sqs.refused("StartMessageMoveTask", "InvalidParameterValue", SourceArn="me")
    for unknown in (arn("nowhere"), arn("a\x00"), source.replace("123456789012", "111111111111")):
        await sqs.refused("StartMessageMoveTask", "ResourceNotFoundException", SourceArn=unknown)
        await sqs.refused("ListMessageMoveTasks", "ResourceNotFoundException", SourceArn=unknown)
    assert await sqs.call("ListMessageMoveTasks", SourceArn=source) == {"Results": []}


@pytest.mark.ci
async def test_the_api_shows_a_move_as_an_action_but_starts_none(dead: Dead) -> None:
    await dead.fill(each=1)
    await dead.start()
    listed = good(await dead.api.get("/actions"))["items"]
    assert ("move", {"queue": dead.name}) in [(action["kind"], action["filter"]) for action in listed]
    for kind in ("move", "empty"):
        reply = await dead.api.post("/actions", json={"kind": kind, "filter": {"queue": dead.name}})
        assert reply.status_code == 422
