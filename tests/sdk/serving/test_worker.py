"""A pull worker on a real service: what it takes, renews, ends, gives back and reports."""

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from sluice_client.context import Context
from sluice_client.errors import Conflict, NotFound
from sluice_client.outcomes import Fatal, Retry, Skip
from sluice_client.serving import worker as workers
from sluice_client.serving.worker import MemoryLimitReached, Worker
from sluice_client.tasks.calls import Call
from sluice_client.tasks.registry import Registry
from sluice_client.transport import Transport
from tests.sdk.serving.mounts import declare
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import AT_ONCE, Api

pytestmark = [pytest.mark.anyio, pytest.mark.ci]


@asynccontextmanager
async def working(worker: Worker) -> AsyncIterator[Worker]:
    running = asyncio.create_task(worker.run())
    yield worker
    if not running.done():
        worker.stop()
    await asyncio.wait_for(running, 20)


Make = Callable[..., Worker]


@pytest.fixture
def make(registry: Registry, transport: Transport) -> Make:
    def make(*queues: str, **options: Any) -> Worker:
        return Worker(transport, registry, queues, **options)

    return make


async def test_a_worker_runs_tasks_and_reports_their_outcomes(api: Api, registry: Registry, make: Make) -> None:
    queue = await api.queue()

    async def add(a: int, b: int) -> int:
        return a + b

    def shout(text: str) -> str:
        assert threading.current_thread() is not threading.main_thread()
        context = Context.current()
        assert context is not None
        return f"{text.upper()} in {context.queue}, {context.attempt} of {context.max_attempts}"

    async def fails(text: str) -> None:
        raise ValueError(text)

    async def later() -> None:
        raise Retry("locked", after=100)

    async def ends(text: str) -> None:
        raise Fatal(text)

    async def skips(text: str) -> None:
        raise Skip(text)

    async def long() -> str:
        return "x" * 100_000

    for function in (add, shout, fails, later, ends, skips, long):
        declare(registry, function, queue)
    async with working(make(queue)):

        async def ended(kind: str, **payload: Any) -> dict[str, Any]:
            task = await api.enqueue(queue, payload, type=kind, retry={"max_attempts": 2, **AT_ONCE})
            return await api.ended(task["id"])

        assert (await ended("add", a=1, b=2))["result"] == 3
        assert (await ended("shout", text="hello"))["result"] == f"HELLO in {queue}, 1 of 2"
        task = await ended("fails", text="no such page")
        assert (task["reason"], task["last_error"]) == ("attempts_exhausted", "ValueError: no such page")
        task = await ended("ends", text="bad address")
        assert (task["reason"], task["last_error"], task["attempt"]) == ("stopped_by_worker", "bad address", 1)
        task = await ended("skips", text="sold")
        assert (task["state"], task["result"]) == ("succeeded", {"skipped": "sold"})
        task = await ended("add", a="one", b=2)
        assert (task["reason"], task["attempt"]) == ("stopped_by_worker", 1) and "/a" in task["last_error"]
        task = await ended("long")
        assert (task["state"], task["result_truncated"], task["result_encoding"]) == ("succeeded", True, "base64")
        for kind in ("later", "unheard of"):
            task = await api.until((await api.enqueue(queue, {}, type=kind))["id"], "scheduled")
        assert "no task named 'unheard of'" in task["last_error"]


async def test_follow_ups_are_enqueued_with_the_completion(api: Api, registry: Registry, make: Make) -> None:
    queue, closing, seen = await api.queue(), await api.queue(), []

    async def statement(customer: int) -> None:
        seen.append(customer)

    async def close(month: str, *, ctx: Context) -> str | None:
        return ctx.batch

    declare(registry, statement, queue)
    declare(registry, close, closing)
    statements, closed = registry.find("statement"), registry.find("close")
    assert statements is not None and closed is not None

    async def customers(month: str, *, ctx: Context) -> int:
        first = int(ctx.cursor or 0)
        for customer in range(first, first + 2):
            ctx.follow_up(Call(statements, statements.bind(customer)))
        if first < 4:
            ctx.next(str(first + 2))
        ctx.on_complete(Call(closed, closed.bind(month)))
        return first

    async def lost(*, ctx: Context) -> None:
        ctx.follow_up(Call(statements, statements.bind(1), {"queue": "no-such-queue"}))

    declare(registry, customers, queue)
    declare(registry, lost, queue)
    async with working(make(queue, closing)):
        root = await api.enqueue(queue, {"month": "2026-11"}, type="customers")

        async def completed() -> bool:
            tasks = await api.pages("/tasks", queue=closing)
            return [task["state"] for task in tasks] == ["succeeded"]

        await poll(completed)
        (last,) = await api.pages("/tasks", queue=closing)
        assert last["result"] == root["id"] and sorted(seen) == [0, 1, 2, 3, 4, 5]
        refused = await api.enqueue(queue, {}, type="lost", retry={"max_attempts": 1})
        assert "no-such-queue" in (await api.ended(refused["id"]))["last_error"]


async def test_leases_are_renewed_for_as_long_as_a_task_runs(api: Api, registry: Registry, make: Make) -> None:
    """Also by a clock that is wrong: only the service's counts."""
    queue = await api.queue()

    async def render() -> str:
        await asyncio.sleep(4.5)
        return "done"

    declare(registry, render, queue)
    async with working(make(queue, lease_seconds=3)):
        task = await api.ended((await api.enqueue(queue, {}))["id"])
        assert (task["state"], task["attempt"], task["result"]) == ("succeeded", 1, "done")


async def test_a_task_that_ends_without_an_outcome_does_not_keep_its_lease(
    api: Api, registry: Registry, make: Make
) -> None:
    queue, attempts = await api.queue(), []

    class Stop(BaseException):
        pass

    async def task(*, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        if ctx.attempt == 1:
            raise Stop

    declare(registry, task, queue)
    async with working(make(queue, lease_seconds=3)):
        created = await api.enqueue(queue, {}, type="task", retry={"max_attempts": 2, **AT_ONCE})
        ended = await api.ended(created["id"])
    assert (ended["state"], attempts) == ("succeeded", [1, 2])


async def test_last_attempts_of_unknown_tasks_leave_room_for_the_others(
    api: Api, registry: Registry, make: Make
) -> None:
    queue = await api.queue()

    async def known() -> int:
        return 1

    declare(registry, known, queue)
    once = {"max_attempts": 1}
    gone = [await api.enqueue(queue, {}, type="gone", retry=once) for _ in range(3)]
    created = await api.enqueue(queue, {}, type="known", retry=once)
    async with working(make(queue, concurrency=1)):
        assert (await api.ended(created["id"]))["result"] == 1
    for task in gone:
        assert (await api.until(task["id"], "ready"))["attempt"] == 0, "given back when the worker stopped"


async def test_a_cancelled_task_is_cancelled_where_it_runs(api: Api, registry: Registry, make: Make) -> None:
    queue, ended, told = await api.queue(), asyncio.Event(), threading.Event()

    async def render(*, ctx: Context) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            assert ctx.cancelled
            ended.set()

    def draw(*, ctx: Context) -> None:
        while not ctx.cancelled:
            threading.Event().wait(0.01)
        told.set()

    declare(registry, render, queue)
    declare(registry, draw, queue)
    async with working(make(queue, lease_seconds=3)):
        tasks = [(await api.enqueue(queue, {}, type=kind))["id"] for kind in ("render", "draw")]
        for task in tasks:
            await api.until(task, "running")
            await api.cancel(task)
        await asyncio.wait_for(ended.wait(), 10)
        assert await asyncio.to_thread(told.wait, 10)
    assert {(await api.task(task))["state"] for task in tasks} == {"cancelled"}


async def test_progress_is_shown_and_the_next_attempt_learns_it(api: Api, registry: Registry, make: Make) -> None:
    queue, before = await api.queue(), []

    async def count(*, ctx: Context) -> None:
        before.append(ctx.delivery.progress)
        ctx.progress(len(before))
        raise ValueError

    declare(registry, count, queue)
    async with working(make(queue)):
        task = await api.enqueue(queue, {}, retry={"max_attempts": 2, **AT_ONCE})
        assert (await api.ended(task["id"]))["progress"] == 2
    assert before == [None, 1]


async def test_a_stopped_worker_lets_its_tasks_end_and_takes_no_more(api: Api, registry: Registry, make: Make) -> None:
    queue, begun, go_on = await api.queue(), asyncio.Event(), asyncio.Event()

    async def render() -> str:
        begun.set()
        await go_on.wait()
        return "done"

    declare(registry, render, queue)
    async with working(make(queue)) as worker:
        running = await api.enqueue(queue, {})
        await begun.wait()
        worker.stop()
        waiting = await api.enqueue(queue, {})
        go_on.set()
    assert (await api.task(running["id"]))["result"] == "done"
    await api.until(waiting["id"], "ready", attempt=0)


async def test_what_does_not_end_in_time_is_given_back_and_not_counted(
    api: Api, registry: Registry, make: Make
) -> None:
    queue, begun, cleaned = await api.queue(), asyncio.Event(), asyncio.Event()

    async def render() -> str:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.set()
        return "never"

    declare(registry, render, queue)
    async with working(make(queue, drain_seconds=0)):
        task = await api.enqueue(queue, {})
        await begun.wait()
    assert cleaned.is_set()
    await api.until(task["id"], "ready", attempt=0)
    assert {attempt["outcome"] for attempt in await api.attempts(task["id"])} == {"released"}


async def test_a_worker_that_is_cancelled_gives_its_tasks_back(api: Api, registry: Registry, make: Make) -> None:
    queue, begun = await api.queue(), asyncio.Event()

    async def render() -> None:
        begun.set()
        await asyncio.sleep(60)

    declare(registry, render, queue)
    running = asyncio.create_task(make(queue).run())
    task = await api.enqueue(queue, {})
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await api.until(task["id"], "ready", attempt=0)


@pytest.mark.parametrize("times", [1, 2])
async def test_a_worker_that_is_cancelled_leaves_no_request_behind(registry: Registry, times: int) -> None:
    """Also if it is cancelled again while it cleans up, as at the end of asyncio.run."""

    class Silent(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            asked.set()
            await asyncio.sleep(60)
            raise AssertionError

    asked = asyncio.Event()
    running = asyncio.create_task(Worker(Transport("http://127.0.0.1:9", http=Silent()), registry, ["a", "b"]).run())
    await asked.wait()
    for _ in range(times):
        running.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await running
    left = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]  # type: ignore[union-attr]
    assert not [name for name in left if name.startswith("Worker.")]


async def test_queues_share_the_worker_and_none_waits_for_another(api: Api, registry: Registry, make: Make) -> None:
    """A single place, and a long poll open on each queue: what comes while the place is taken is given back at once."""
    first, second = await api.queue(), await api.queue()
    most, running = 0, 0

    async def one(n: int) -> int:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return n

    declare(registry, one, first)
    async with working(make(first, second, concurrency=1)):
        tasks = []
        for queue in (first, second) * 5:
            tasks.append((await api.enqueue(queue, {"n": 1}, type="one"))["id"])
        for task in tasks:
            assert (await api.ended(task))["state"] == "succeeded"
    assert most == 1


async def test_places_whose_outcomes_are_being_reported_are_waited_for(
    api: Api, registry: Registry, shared: Replica
) -> None:
    """So that a round of short tasks costs one request for tasks, and not one per task."""
    queue, asked = await api.queue(), []

    class Slow(httpx2.AsyncHTTPTransport):
        """The eight completions of a round are heard one after the other, five milliseconds apart."""

        completions = 0

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            if request.url.path.endswith("/complete"):
                self.completions += 1
                await asyncio.sleep(0.005 * (1 + self.completions % 8))
            else:
                asked.append(json.loads(request.content)["max_tasks"])
            return await super().handle_async_request(request)

    async def short() -> None: ...

    declare(registry, short, queue)
    tasks = await api.bulk(queue, [{"payload": {}} for _ in range(80)])
    async with Transport(shared.url, http=Slow()) as transport, working(Worker(transport, registry, [queue])):
        for task in tasks:
            await api.ended(task)
    assert len(asked) <= 80 / 2.5, asked  # one per place without it; a busy machine adds some


async def test_a_worker_that_has_grown_too_large_ends_what_it_has_and_asks_to_be_restarted(
    api: Api, registry: Registry, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, used = await api.queue(), 100_000_000

    async def grow() -> str:
        nonlocal used
        used = 600_000_000
        await asyncio.sleep(0.1)
        return "done"

    monkeypatch.setattr(workers, "resident_bytes", lambda: used)
    monkeypatch.setattr(workers, "MEMORY_SECONDS", 0.01)
    declare(registry, grow, queue)
    task = await api.enqueue(queue, {})
    with pytest.raises(MemoryLimitReached) as ended:
        await make(queue, memory_limit="512MB").run()
    assert ended.value.code == 75
    assert (await api.task(task["id"]))["result"] == "done"


async def test_a_worker_that_can_get_no_tasks_says_so_at_once(api: Api, make: Make) -> None:
    with pytest.raises(NotFound, match="no-such-queue"):
        await make("no-such-queue").run()
    with pytest.raises(Conflict, match="queue_is_push"):
        await make(await api.queue_to("http://127.0.0.1:9/")).run()


async def test_a_task_that_blocks_the_event_loop_is_named_in_a_warning(
    api: Api, registry: Registry, make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = await api.queue()

    async def polite() -> None:
        await asyncio.sleep(0.7)

    async def rude() -> None:
        threading.Event().wait(0.6)

    declare(registry, polite, queue)
    declare(registry, rude, queue)
    with caplog.at_level(logging.WARNING, "sluice_client"):
        async with working(make(queue)):
            for kind in ("polite", "rude"):
                await api.ended((await api.enqueue(queue, {}, type=kind))["id"])
    assert [record.args[0] for record in caplog.records if "blocked" in record.msg] == ["rude"]  # type: ignore[index]
