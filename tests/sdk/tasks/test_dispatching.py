"""What dispatching sends: one call, many, and what it makes of lost responses and refusals. No network."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from sluice_client import (
    Context,
    DispatchIncomplete,
    Invalid,
    Sluice,
    TaskFailed,
    correlation_id,
)
from sluice_client.context import Delivery
from sluice_client.tasks import paging, refs

pytestmark = pytest.mark.anyio


class Answering:
    """Keeps what it is sent, and answers as it is told: by default, every task is created."""

    def __init__(self) -> None:
        self.requests: list[httpx2.Request] = []
        self.script: list[Any] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        scripted = self.script.pop(0) if self.script else None
        if isinstance(scripted, Exception):
            raise scripted
        if scripted is not None:
            status, body = scripted
            kind = "application/json" if status < 400 else "application/problem+json"
            return httpx2.Response(status, json=body, headers={"content-type": kind})
        if request.url.path == "/batches":
            return httpx2.Response(201, json={"id": "batch"})
        if request.url.path.endswith(("/bulk", "/batch/tasks")):
            created = [{"status": 201, "id": f"t-{task['payload']['n']}"} for task in self.body()["tasks"]]
            return httpx2.Response(200, json={"results": created})
        return httpx2.Response(201, json={"id": "t"})

    def body(self, index: int = -1) -> Any:
        return json.loads(self.requests[index].content)


@pytest.fixture
def answering() -> Answering:
    return Answering()


@pytest.fixture
def sluice(answering: Answering) -> Sluice:
    return Sluice("http://sluice.test", timeout=2, http=httpx2.MockTransport(answering))


@pytest.fixture
def task(sluice: Sluice) -> Any:
    @sluice.task(queue="q")
    def count(n: int, pad: str = "") -> int:
        return n

    return count


@pytest.fixture
async def running() -> AsyncIterator[Context]:
    """Entered in the task that runs the test as well: that may be older than the fixtures that are not async."""
    traceparent = f"00-{'1' * 32}-{'2' * 16}-01"
    delivery = Delivery(
        id="t", queue="q", type="f", attempt=1, max_attempts=1, payload=None, correlation_id="c-1", traceparent=traceparent,
        tracestate="a=b",
    )  # fmt: skip
    context = Context(delivery, controls=None)  # type: ignore[arg-type]
    token = context.enter()
    yield context
    context.leave(token)


async def test_a_dispatch_has_a_key_of_its_own_and_keeps_it_when_it_is_repeated(
    task: Any, answering: Answering
) -> None:
    answering.script = [httpx2.ReadError("lost"), None]
    ref = await task.dispatch(1)
    assert (ref.id, ref.created, len(answering.requests)) == ("t", True, 2)
    assert answering.body(0) == answering.body(1)
    await task.dispatch(1)
    assert answering.body(0)["idempotency_key"] != answering.body(2)["idempotency_key"]


async def test_the_key_of_the_caller_wins(task: Any, answering: Answering) -> None:
    answering.script = [(200, {"id": "first"})]
    ref = await task.options(idempotency_key="order-17").dispatch(1)
    assert (ref.id, ref.created) == ("first", False)
    assert answering.body()["idempotency_key"] == "order-17"


async def test_an_enqueue_within_a_task_is_part_of_its_trace_and_has_its_correlation_id(
    task: Any, answering: Answering, running: Context
) -> None:
    await task.dispatch(1)
    await task.options(correlation_id="own").dispatch(1)
    await task._api().dispatch_many([task.call(1)])
    assert answering.requests[0].headers["traceparent"] == running.delivery.traceparent
    assert answering.requests[0].headers["tracestate"] == "a=b"
    assert answering.requests[2].headers["traceparent"] == running.delivery.traceparent
    assert [answering.body(0)["correlation_id"], answering.body(1)["correlation_id"]] == ["c-1", "own"]
    assert answering.body(2)["tasks"][0]["correlation_id"] == "c-1"
    with trace.use_span(TracerProvider().get_tracer("t").start_span("inside")) as span:
        await task.dispatch(1)
    assert f"{span.get_span_context().trace_id:032x}" in answering.requests[3].headers["traceparent"]


async def test_outside_of_tasks_the_correlation_id_is_that_of_the_context(task: Any, answering: Answering) -> None:
    token = correlation_id.set("req-9")
    await task.dispatch(1)
    correlation_id.reset(token)
    await task.dispatch(1)
    assert answering.body(0)["correlation_id"] == "req-9"
    assert "correlation_id" not in answering.body(1) and "traceparent" not in answering.requests[1].headers


async def test_many_calls_are_few_requests_by_queue_and_come_back_in_order(
    sluice: Sluice, task: Any, answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "PAGE_TASKS", 4)
    calls = [task.options(queue="other").call(n) if n % 3 == 0 else task.call(n) for n in range(15)]
    seen: list[tuple[int, int | None]] = []
    refs = await sluice.dispatch_many(calls, progress=lambda done, total: seen.append((done, total)))
    assert [ref.id for ref in refs] == [f"t-{n}" for n in range(15)]
    paths = [request.url.path for request in answering.requests]
    assert (paths.count("/queues/q/tasks/bulk"), paths.count("/queues/other/tasks/bulk")) == (3, 2)
    assert seen[-1] == (15, 15) and [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert await sluice.dispatch_many(task.call(n) for n in range(0)) == []


async def test_a_page_has_its_bounds_in_bytes_too(
    sluice: Sluice, task: Any, answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "PAGE_BYTES", 1000)
    await sluice.dispatch_many(task.call(n, "x" * (300 if n else 5000)) for n in range(7))
    sizes = [(len(answering.body(n)["tasks"]), len(request.content)) for n, request in enumerate(answering.requests)]
    assert sizes[0][0] == 1 and all(size < 1100 for count, size in sizes if count > 1) and sum(n for n, _ in sizes) == 7


async def test_what_is_refused_is_reported_by_its_place_and_the_rest_is_enqueued(
    sluice: Sluice, task: Any, answering: Answering
) -> None:
    problem = {"code": "queue_full", "detail": "the queue is full", "errors": []}
    results = [{"status": 201, "id": "a"}, {"status": 429, "problem": problem}, {"status": 200, "id": "c"}]
    answering.script = [(200, {"results": results})]
    with pytest.raises(
        DispatchIncomplete, match=r"2 calls are enqueued; 1 were refused \(queue_full; the first, at index 1"
    ) as found:
        await sluice.dispatch_many([task.call(n) for n in range(3)])
    error = found.value
    assert [ref and (ref.id, ref.created) for ref in error.refs] == [("a", True), None, ("c", False)]
    assert [(one.index, one.status, one.code, one.call.arguments.values["n"]) for one in error.refused] == [
        (1, 429, "queue_full", 1)
    ]
    [again] = error.remaining
    assert again.idempotency_key == answering.body(0)["tasks"][1]["idempotency_key"]


async def test_when_the_service_is_gone_what_was_not_sent_can_be_dispatched_again(
    sluice: Sluice, task: Any, answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "PAGE_TASKS", 2)
    answering.script = [None, (401, {"code": "unauthenticated", "detail": "no"})]
    with pytest.raises(
        DispatchIncomplete, match=r"2 calls are enqueued; 5 were not sent \(401 unauthenticated"
    ) as found:
        await sluice.dispatch_many(task.call(n) for n in range(7))
    lost = answering.body()["tasks"]
    refs = await sluice.dispatch_many(found.value.remaining)
    assert [ref.id for ref in refs] == [f"t-{n}" for n in range(2, 7)]
    assert answering.body(2)["tasks"] == lost  # with the same keys


async def test_a_batch_is_created_by_its_first_task_and_sealed_when_the_block_ends(
    sluice: Sluice, task: Any, answering: Answering
) -> None:
    async with sluice.batch(on_complete=task.call(9)) as batch:
        ref = await batch.add(task.call(1))
        await batch.add_many(task.call(n) for n in range(2, 4))
        with pytest.raises(ValueError, match="a batch has one queue"):
            await batch.add(task.options(queue="other").call(1))
    assert (ref.id, batch.id) == ("t-1", "batch")
    assert [request.url.path for request in answering.requests] == [
        "/batches", "/batches/batch/tasks", "/batches/batch/tasks", "/batches/batch/seal",
    ]  # fmt: skip
    assert answering.body(0) == {
        "queue": "q", "sealed": False, "on_complete": {"queue": "q", "type": "count", "payload": {"n": 9}},
    }  # fmt: skip


async def test_a_batch_whose_block_raises_stays_open_and_can_be_gone_on_with(
    sluice: Sluice, task: Any, answering: Answering, caplog: pytest.LogCaptureFixture
) -> None:
    async def fill() -> None:
        async with sluice.batch(on_complete=task.call(9)) as batch:
            await batch.add(task.call(1))
            raise LookupError

    with pytest.raises(LookupError):
        await fill()
    assert [request.url.path for request in answering.requests][-1] == "/batches/batch/tasks"
    assert "batch batch stays open, because what fills it raised LookupError" in caplog.text
    async with sluice.batch("batch") as batch:
        await batch.add(task.call(2))
    assert [request.url.path for request in answering.requests][2:] == ["/batches/batch/tasks", "/batches/batch/seal"]


async def test_a_batch_without_tasks_completes_at_once_if_something_waits_for_it(
    sluice: Sluice, task: Any, answering: Answering
) -> None:
    async with sluice.batch():
        pass
    assert not answering.requests
    async with sluice.batch(on_complete=task.call(9)):
        pass
    assert [request.url.path for request in answering.requests] == ["/batches", "/batches/batch/seal"]


def ended(state: str, **fields: Any) -> tuple[int, dict[str, Any]]:
    return 200, {"state": state, "reason": None, "result": None, "result_truncated": False, **fields}


async def test_wait_asks_until_the_task_has_ended_and_reads_its_result(task: Any, answering: Answering) -> None:
    answering.script = [ended("running"), ended("succeeded", result=7)]
    assert await task.ref("t").wait() == 7
    answering.script = [ended("succeeded", result="7")]
    with pytest.raises(ValueError, match="the result of count is invalid: / expected an integer"):
        await task.ref("t").wait()
    answering.script = [ended("succeeded", result="cut", result_truncated=True)]
    with pytest.raises(ValueError, match="was cut off"):
        await task.ref("t").wait()


async def test_wait_outlives_a_service_that_is_away(
    task: Any, answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refs, "PAUSE_SECONDS", 0.0)
    gone = (503, {"code": "unavailable", "detail": "no"})

    answering.script = [gone, httpx2.ReadError("lost"), (500, {"not": "ours"}), ended("succeeded", result=7)]
    assert await task.ref("t").wait("10s") == 7


async def test_wait_raises_what_the_task_failed_with(task: Any, answering: Answering) -> None:
    attempts = [{"error": "ValueError: late"}, {"error": None}, {"error": "OSError: early"}]
    answering.script = [ended("dead", reason="attempts_exhausted"), (200, {"items": attempts, "next_cursor": None})]
    with pytest.raises(TaskFailed, match=r"task t \(count\) is dead, attempts_exhausted: ValueError: late") as found:
        await task.ref("t").wait()
    assert (found.value.state, found.value.errors) == ("dead", ["ValueError: late", "OSError: early"])


async def test_wait_ends_after_its_timeout(task: Any, answering: Answering) -> None:
    answering.script = [ended("ready")]
    with pytest.raises(TimeoutError, match="task t has not ended within 0"):
        await task.ref("t").wait(0)


async def test_what_the_service_refuses_is_raised(task: Any, answering: Answering) -> None:
    answering.script = [(422, {"code": "idempotency_mismatch", "detail": "another payload"})]
    with pytest.raises(Invalid, match="idempotency_mismatch"):
        await task.options(idempotency_key="k").dispatch(1)
    assert len(answering.requests) == 1
