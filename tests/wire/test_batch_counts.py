"""A batch formed by follow-up work: what it counts, when it has completed, and what is enqueued then, exactly once."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from tests.handlers import Handler
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api, good, problem
from tests.wire.test_auth import as_, clients, guarded, keys  # fixtures and what makes callers
from tests.wire.test_followups import answer, unit
from tests.wire.test_leases import say, take, take_one

pytestmark = pytest.mark.anyio

__all__ = ["clients", "guarded", "keys"]

Counts = dict[str, Any]
NO_MORE = {"error": "no", "retryable": False}


class Fan:
    """A root and its units, ready to be worked at; what follows waits in `sums`."""

    def __init__(self, api: Api, replica: Replica) -> None:
        self.api = api
        self.db = replica.sluice.core.db
        self.root: dict[str, Any] = {}
        self.lister = self.units = self.sums = ""

    async def out(self, count: int, **fields: Any) -> list[dict[str, Any]]:
        self.lister, self.units, self.sums = [await self.api.queue() for _ in range(3)]
        self.root = await self.api.enqueue(self.lister)
        await self.page(tasks=[unit(self.units, str(n), n, **fields) for n in range(count)])
        return await self.api.pages("/tasks", queue=self.units)

    async def page(self, **page: Any) -> None:
        page = {"on_complete": {"queue": self.sums, "payload": "sum"}, **page}
        good(await say(self.api, await take_one(self.api, self.lister), "complete", page))

    async def counts(self) -> Counts:
        sql = "select total, succeeded, dead, cancelled, completed_at from sluice.batches where id = $1"
        (row,) = await self.db.fetch(sql, self.root["id"])
        return dict(row.items())

    async def folded(self) -> Counts:
        """The counts once nothing is left to be folded."""

        async def none_left() -> bool:
            sql = "select count(*) from sluice.batch_deltas where batch_id = $1"
            return int(await self.db.fetchval(sql, self.root["id"])) == 0

        await poll(none_left)
        return await self.counts()

    async def completed(self, total: int, succeeded: int, dead: int = 0, cancelled: int = 0) -> Counts:
        async def so() -> bool:
            return (await self.counts())["completed_at"] is not None

        await poll(so)
        found = await self.folded()
        assert list(found.values())[:4] == [total, succeeded, dead, cancelled]
        return found

    async def followed_by(self, *payloads: Any) -> None:
        """These tasks, and no others, are what the completion led to."""
        found = await take(self.api, self.sums, max_tasks=100, wait_seconds=20)
        assert sorted(task["payload"] for task in found) == sorted(payloads)
        # who pulls one learns of the batch, as a handler does, but it is no part of it
        assert {(task["batch"], task["parent"]) for task in found} == {(self.root["id"], None)}
        assert {(await self.api.task(task["id"]))["batch"] for task in found} == {None}

    async def followed_by_nothing(self) -> None:
        assert await self.api.pages("/tasks", queue=self.sums) == []


@pytest.fixture
def fan(api: Api, shared: Replica) -> Fan:
    return Fan(api, shared)


async def test_a_batch_counts_its_root_and_completes_when_all_of_it_has_ended(api: Api, fan: Fan) -> None:
    await fan.out(3)
    assert list((await fan.folded()).values()) == [4, 1, 0, 0, None]
    first, second, third = await take(api, fan.units, max_tasks=9)
    good(await say(api, first, "complete"))
    good(await say(api, second, "fail", {"error": "not yet", "retry_after_seconds": 600}))
    good(await say(api, third, "fail", NO_MORE))
    assert list((await fan.folded()).values()) == [4, 2, 1, 0, None]
    await fan.followed_by_nothing()
    good(await api.cancel(second["id"]))
    await fan.completed(4, 2, 1, 1)
    await fan.followed_by("sum")


async def test_a_root_alone_completes_its_batch(api: Api, fan: Fan) -> None:
    await fan.out(0)
    await fan.completed(1, 1)
    await fan.followed_by("sum")


async def dies(fan: Fan, task: dict[str, Any]) -> None:
    good(await say(fan.api, await take_one(fan.api, fan.units), "fail", NO_MORE))


async def is_cancelled(fan: Fan, task: dict[str, Any]) -> None:
    good(await fan.api.cancel(task["id"]))


async def is_cancelled_running(fan: Fan, task: dict[str, Any]) -> None:
    await take_one(fan.api, fan.units)
    good(await fan.api.cancel(task["id"]))


async def is_purged(fan: Fan, task: dict[str, Any]) -> None:
    assert (await fan.api.post(f"/queues/{fan.units}/purge")).status_code == 202


async def expires(fan: Fan, task: dict[str, Any]) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=0.5)).isoformat()
    good(await fan.api.client.patch(f"/tasks/{task['id']}", json={"expires_at": soon}))


async def is_lost_at_its_last_attempt(fan: Fan, task: dict[str, Any]) -> None:
    good(await fan.api.client.patch(f"/tasks/{task['id']}", json={"retry": {"max_attempts": 1}}))
    await take_one(fan.api, fan.units, lease_seconds=1)


@pytest.mark.parametrize(
    ("end", "dead", "cancelled"),
    [
        (dies, 1, 0),
        (is_cancelled, 0, 1),
        (is_cancelled_running, 0, 1),
        (is_purged, 0, 1),
        (expires, 1, 0),
        (is_lost_at_its_last_attempt, 1, 0),
    ],
)
async def test_however_its_last_task_ends_a_batch_completes(
    fan: Fan, end: Callable[[Fan, dict[str, Any]], Awaitable[None]], dead: int, cancelled: int
) -> None:
    (task,) = await fan.out(1)
    await end(fan, task)
    await fan.completed(2, 1, dead, cancelled)
    await fan.followed_by("sum")


async def test_what_did_not_count_ends_no_task_of_a_batch(api: Api, fan: Fan) -> None:
    """Retries, releases and leases that ran out leave the counts as they are."""
    await fan.out(1)
    good(await say(api, await take_one(api, fan.units), "release"))
    good(await say(api, await take_one(api, fan.units), "fail", {"error": "once"}))
    (task,) = await api.pages("/tasks", queue=fan.units)
    good(await api.retry(task["id"]))
    await take_one(api, fan.units, lease_seconds=1)
    leased = await take_one(api, fan.units, wait_seconds=20)
    assert list((await fan.folded()).values()) == [2, 1, 0, 0, None]
    good(await say(api, leased, "complete"))
    await fan.completed(2, 2)


@pytest.mark.parametrize("again", ["retry", "redrive"])
async def test_a_redrive_reopens_the_counts_and_not_the_completion(api: Api, fan: Fan, again: str) -> None:
    (task,) = await fan.out(1)
    await dies(fan, task)
    before = await fan.completed(2, 1, 1)
    await fan.followed_by("sum")
    if again == "retry":
        good(await api.retry(task["id"]))
    else:
        assert good(await api.post(f"/queues/{fan.units}/redrive", json={}))["moved"] == 1
    assert list((await fan.folded()).values()) == [2, 1, 0, 0, before["completed_at"]]
    more = {"tasks": [unit(fan.units, "late")], "on_complete": {"queue": fan.sums, "payload": "sum"}}
    good(await say(api, await take_one(api, fan.units), "complete", more))
    assert list((await fan.folded()).values()) == [3, 2, 0, 0, before["completed_at"]]
    distinct = {"on_complete": {"queue": fan.sums, "payload": "late sum"}}
    good(await say(api, await take_one(api, fan.units), "complete", distinct))
    # the one that was enqueued is not again; another, named since, is
    await fan.followed_by("late sum")
    assert list((await fan.folded()).values()) == [3, 3, 0, 0, before["completed_at"]]


async def test_each_distinct_on_complete_is_kept_once(api: Api, fan: Fan) -> None:
    tasks = await fan.out(3)
    for _, payload in zip(tasks, ("sum", "sum", {"other": 1}), strict=True):
        named = {"on_complete": {"queue": fan.sums, "payload": payload}}
        good(await say(api, await take_one(api, fan.units), "complete", named))
    await fan.completed(4, 4)
    found = await take(api, fan.sums, max_tasks=9, wait_seconds=20)
    assert sorted(str(task["payload"]) for task in found) == ["sum", "{'other': 1}"]


async def test_what_follows_a_completion_belongs_to_no_batch_and_may_form_its_own(
    api: Api, fan: Fan, handler: Handler
) -> None:
    handler.answer(answer(result="summed", tasks=[]))
    fan.lister, fan.units, fan.sums = await api.queue(), await api.queue(), await api.queue_to(handler.url)
    fan.root = await api.enqueue(fan.lister)
    await fan.page(tasks=[])
    (request,) = await handler.received()
    assert request.headers["sluice-batch"] == fan.root["id"] and "sluice-cursor" not in request.headers
    done = await api.until(request.task, "succeeded", result="summed", batch=None)
    assert done["parent"] is None
    await fan.completed(1, 1)


async def test_a_queue_that_waits_for_a_batch_cannot_be_deleted(api: Api, fan: Fan) -> None:
    await fan.out(1)
    problem(await api.delete(f"/queues/{fan.sums}"), 409, "queue_in_use")
    good(await say(api, await take_one(api, fan.units), "complete"))
    await fan.completed(2, 2)
    await fan.followed_by("sum")
    problem(await api.delete(f"/queues/{fan.sums}"), 409, "queue_in_use")
    (task,) = await api.pages("/tasks", queue=fan.sums)
    good(await api.cancel(task["id"]))
    assert (await api.delete(f"/queues/{fan.sums}")).status_code == 204


async def test_a_deleted_queue_is_none_that_a_page_may_name(api: Api, fan: Fan) -> None:
    """Although the replica that judges the page has known it."""
    await fan.out(1)
    leased = await take_one(api, fan.units)
    gone = await api.queue()
    await api.enqueue(gone)
    good(await say(api, await take_one(api, gone), "complete"))
    assert (await api.delete(f"/queues/{gone}")).status_code == 204
    page = {"tasks": [unit(gone, "a")], "on_complete": {"queue": gone, "payload": 1}}
    problem(await say(api, leased, "complete", page), 422, "invalid", "/tasks/0/queue", "/on_complete/queue")
    good(await say(api, leased, "complete"))


async def test_a_page_cannot_name_the_queues_or_handlers_of_another_tenant(
    guarded: Any, keys: dict[str, str], clients: list[httpx2.AsyncClient], handler: Handler
) -> None:
    mine, rival = [await as_(guarded, keys[name], clients) for name in ("manage", "rival")]
    theirs, named = await mine.queue(), await mine.handler(handler.url)
    lister, pushed = await rival.queue(), await rival.queue_to(handler.url)
    await rival.enqueue(lister)
    leased = await take_one(rival, lister)
    page = {
        "tasks": [unit(theirs, "a"), unit(pushed, "b", handler=named)],
        "on_complete": {"queue": theirs, "payload": 1},
    }
    places = ("/tasks/0/queue", "/tasks/1/handler", "/on_complete/queue")
    problem(await say(rival, leased, "complete", page), 422, "invalid", *places)
    handler.script(answer(**page))
    dead = await rival.until((await rival.enqueue(pushed, retry={"max_attempts": 1}))["id"], "dead")
    assert all(place in dead["last_error"] for place in places)
    assert await mine.pages("/tasks", queue=theirs) == []
