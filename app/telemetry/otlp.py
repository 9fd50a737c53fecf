"""Tracing with OpenTelemetry's SDK: a provider of its own, never the global one, exporting OTLP over HTTP.

Headers, sampling, timeouts and resource attributes follow OpenTelemetry's environment variables, which the SDK reads.
"""

import asyncio
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.telemetry.tracing import LATE_SECONDS, AttemptSpan, EnqueueSpan, TraceContext

CLOSE_SECONDS: Final = 5.0
# Probes and scrapes are not traced. Anchored, because a queue may be named metrics.
UNTRACED: Final = r"^https?://[^/]+/health/,^https?://[^/]+/metrics$"

_propagator = TraceContextTextMapPropagator()


def resource_of(version: str, replica: str) -> Resource:
    """Return what OpenTelemetry calls the resource: this process."""
    resource = Resource.create({"service.version": version, "service.instance.id": replica})
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        return resource.merge(Resource({"service.name": "sluice"}))
    return resource


class OtlpTracing:
    enabled = True

    def __init__(self, endpoint: str, *, version: str, replica: str) -> None:
        self._provider = TracerProvider(resource=resource_of(version, replica), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self._tracer = self._provider.get_tracer("sluice", version)

    def instrument(self, app: Any) -> None:
        FastAPIInstrumentor.instrument_app(
            app,
            tracer_provider=self._provider,
            meter_provider=NoOpMeterProvider(),
            excluded_urls=UNTRACED,
            exclude_spans=["receive", "send"],
        )

    def enqueue(self, queue: str, tenant: str, incoming: TraceContext | None, tasks: int = 1) -> EnqueueSpan:
        # If the route is instrumented, the server span already has the incoming context as its parent.
        parent = None if trace.get_current_span().get_span_context().is_valid else _remote(incoming)
        span = self._tracer.start_span(
            f"enqueue {queue}",
            context=parent,
            kind=SpanKind.PRODUCER,
            attributes={
                **_destination(queue, tenant),
                "messaging.operation.type": "send",
                "messaging.batch.message_count": tasks,
            },
        )
        return _EnqueueSpan(span)

    def attempt(
        self, queue: str, tenant: str, task: str, number: int, stored: TraceContext | None, age_seconds: float
    ) -> AttemptSpan:
        enqueued = _remote(stored)
        follows = number == 1 and age_seconds < LATE_SECONDS
        span = self._tracer.start_span(
            f"attempt {queue}",
            # An empty context, not None: an attempt must not become the child of whatever span is current.
            context=enqueued if enqueued is not None and follows else otel_context.Context(),
            links=[] if enqueued is None or follows else [Link(trace.get_current_span(enqueued).get_span_context())],
            kind=SpanKind.CONSUMER,
            attributes={
                **_destination(queue, tenant),
                "messaging.operation.type": "process",
                "messaging.message.id": task,
                "sluice.attempt": number,
            },
        )
        return _AttemptSpan(span)

    async def aclose(self) -> None:
        # In a daemon thread, so that a collector that hangs neither delays the process's exit nor outlives it.
        sent = asyncio.Event()
        loop = asyncio.get_running_loop()

        def shut_down() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop closed first
                loop.call_soon_threadsafe(sent.set)

        threading.Thread(target=shut_down, name="tracing-shutdown", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await sent.wait()


class _EnqueueSpan:
    def __init__(self, span: Span) -> None:
        self._span = span
        self.context: TraceContext | None = _outgoing(span)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        # Only the type, because a message may quote the payload.
        if kind is not None:
            self._span.set_status(Status(StatusCode.ERROR, kind.__name__))
        self._span.end()


class _AttemptSpan:
    def __init__(self, span: Span) -> None:
        self._span = span
        self.context: TraceContext | None = _outgoing(span)

    @property
    def trace_id(self) -> str | None:
        return None if self.context is None else self.context.trace_id

    def end(self, outcome: str, status: int | None = None) -> None:
        self._span.set_attribute("sluice.outcome", outcome)
        if status is not None:
            self._span.set_attribute("http.response.status_code", status)
        if outcome != "succeeded":
            self._span.set_status(Status(StatusCode.ERROR, outcome))
        self._span.end()


def _destination(queue: str, tenant: str) -> dict[str, str]:
    return {"messaging.system": "sluice", "messaging.destination.name": queue, "sluice.tenant": tenant}


def _remote(context: TraceContext | None) -> otel_context.Context | None:
    if context is None:
        return None
    return _propagator.extract(dict(context.headers()), otel_context.Context())


def _outgoing(span: Span) -> TraceContext | None:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, trace.set_span_in_context(span, otel_context.Context()))
    return TraceContext.parse(carrier.get("traceparent"), carrier.get("tracestate"))
