"""Traces over the wire: from the caller's context through a real replica to the handler, and to an OTLP collector."""

from collections.abc import Awaitable, Callable, Iterator, Mapping

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from app.telemetry.tracing import TraceContext
from tests.handlers import Handler, Reply
from tests.sluices import SluiceProcess
from tests.support import poll
from tests.telemetry.collector import Collector, attributes, collecting
from tests.wire.api import AT_ONCE, Api, good

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

Start = Callable[..., Awaitable[SluiceProcess]]

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"
INCOMING = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01", "tracestate": "congo=t61rcWkgMzE"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
async def traced(collector: Collector, start_sluice: Start) -> Api:
    """A replica that sends its spans to the collector, every few milliseconds."""
    endpoint = collector.url.removesuffix("/v1/traces")
    process = await start_sluice(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_BSP_SCHEDULE_DELAY="20")
    return Api(process.client, process.url)


async def spans(collector: Collector, name: str, count: int = 1) -> list[Span]:
    """Wait for the spans of this name; in order of their starts."""
    await poll(lambda: len(collector.named(name)) >= count)
    found = sorted(collector.named(name), key=lambda span: span.start_time_unix_nano)
    assert len(found) == count
    return found


def context_of(headers: Mapping[str, str]) -> TraceContext:
    found = TraceContext.parse(headers["traceparent"], headers.get("tracestate"))
    assert found is not None
    return found


async def test_a_trace_goes_from_the_caller_over_server_enqueue_and_attempt_to_the_handler(
    traced: Api, collector: Collector, handler: Handler
) -> None:
    queue = await traced.queue_to(handler.url)
    task = good(await traced.post(f"/queues/{queue}/tasks", json={"payload": 1}, headers=INCOMING), 201)
    [request] = await handler.received(1)

    [producer] = await spans(collector, f"enqueue {queue}")
    [attempt] = await spans(collector, f"attempt {queue}")
    [server] = await spans(collector, "POST /queues/{name}/tasks")
    assert server.kind == Span.SPAN_KIND_SERVER and producer.kind == Span.SPAN_KIND_PRODUCER
    assert attempt.kind == Span.SPAN_KIND_CONSUMER
    assert [span.trace_id.hex() for span in (server, producer, attempt)] == [TRACE_ID] * 3
    assert server.parent_span_id.hex() == SPAN_ID
    assert producer.parent_span_id == server.span_id
    assert attempt.parent_span_id == producer.span_id and not attempt.links
    assert attributes(attempt)["messaging.message.id"] == task["id"]
    assert attributes(attempt)["sluice.outcome"] == "succeeded"

    received = context_of(request.headers)
    assert (received.trace_id, received.span_id) == (TRACE_ID, attempt.span_id.hex())
    assert received.tracestate == INCOMING["tracestate"]
    await traced.until(task["id"], "succeeded")
    assert [made["trace_id"] for made in await traced.attempts(task["id"])] == [TRACE_ID]


async def test_a_retry_is_a_trace_of_its_own_linked_to_the_enqueue(
    traced: Api, collector: Collector, handler: Handler
) -> None:
    handler.answer(Reply(503))
    queue = await traced.queue_to(handler.url, retry=AT_ONCE)
    task = good(await traced.post(f"/queues/{queue}/tasks", json={"payload": 1}, headers=INCOMING), 201)
    await traced.until(task["id"], "succeeded")

    [producer] = await spans(collector, f"enqueue {queue}")
    first, second = await spans(collector, f"attempt {queue}", 2)
    assert first.trace_id == producer.trace_id and first.parent_span_id == producer.span_id
    assert second.trace_id != producer.trace_id and second.parent_span_id == b""
    assert [(link.trace_id, link.span_id) for link in second.links] == [(producer.trace_id, producer.span_id)]
    assert [attributes(span)["sluice.outcome"] for span in (first, second)] == ["failed", "succeeded"]
    assert attributes(first)["http.response.status_code"] == 503

    sent = [context_of(request.headers) for request in await handler.received(2, task=task["id"])]
    assert [context.span_id for context in sent] == [first.span_id.hex(), second.span_id.hex()]
    made = [attempt["trace_id"] for attempt in await traced.attempts(task["id"])]
    assert made == [second.trace_id.hex(), first.trace_id.hex()]


async def test_an_enqueue_without_a_context_begins_a_trace(traced: Api, collector: Collector, handler: Handler) -> None:
    queue = await traced.queue_to(handler.url)
    task = await traced.enqueue(queue, "private words")
    [request] = await handler.received(1)
    [attempt] = await spans(collector, f"attempt {queue}")
    [server] = await spans(collector, "POST /queues/{name}/tasks")
    assert server.parent_span_id == b"" and server.trace_id == attempt.trace_id
    assert context_of(request.headers).trace_id == attempt.trace_id.hex()
    await traced.until(task["id"], "succeeded")
    assert (await traced.attempts(task["id"]))[0]["trace_id"] == attempt.trace_id.hex()
    assert not any("private words" in str(span) for span in collector.spans)


async def test_probes_and_scrapes_leave_no_spans(traced: Api, collector: Collector, handler: Handler) -> None:
    for path in ("/health/live", "/health/ready", "/metrics"):
        assert (await traced.get(path)).status_code == 200
    await traced.queue_to(handler.url)
    await spans(collector, "PUT /queues/{name}")
    assert {span.name for span in collector.spans} == {"PUT /queues/{name}", "PUT /handlers/{name}"}


async def test_without_otlp_the_context_that_came_in_goes_out(sluice: SluiceProcess, handler: Handler) -> None:
    handler.answer(Reply(503))
    api = Api(sluice.client, sluice.url)
    queue = await api.queue_to(handler.url, retry=AT_ONCE)
    task = good(await api.post(f"/queues/{queue}/tasks", json={"payload": 1}, headers=INCOMING), 201)
    for request in await handler.received(2):
        assert {name: request.headers[name] for name in INCOMING} == INCOMING
    await api.until(task["id"], "succeeded")
    assert [made["trace_id"] for made in await api.attempts(task["id"])] == [TRACE_ID, TRACE_ID]
    bare = await api.enqueue(queue)
    [request] = await handler.received(1, task=bare["id"])
    assert "traceparent" not in request.headers


async def test_a_collector_that_is_away_costs_no_delivery(start_sluice: Start, handler: Handler) -> None:
    process = await start_sluice(
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_BSP_SCHEDULE_DELAY="20", OTEL_EXPORTER_OTLP_TIMEOUT="1"
    )
    api = Api(process.client, process.url)
    task = await api.enqueue(await api.queue_to(handler.url))
    await api.until(task["id"], "succeeded")
    assert await process.terminate() == 0
