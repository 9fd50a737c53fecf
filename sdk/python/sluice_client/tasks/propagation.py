"""What an enqueue carries of the work it is part of: the correlation id and the W3C trace context."""

import sys
from contextvars import ContextVar

from sluice_client.context import Context

correlation_id: ContextVar[str | None] = ContextVar("sluice_client.correlation_id", default=None)
"""The correlation id of what is enqueued here: set it where a request comes in. Within a task, it is the task's own."""


def present_correlation_id() -> str | None:
    running = Context.current()
    return correlation_id.get() or (running.correlation_id if running is not None else None)


def trace_headers() -> dict[str, str]:
    """Return `traceparent` and `tracestate`: of OpenTelemetry's current span, else those that the running task came with."""
    if "opentelemetry.trace" in sys.modules:  # else nobody can have started a span
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        headers: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(headers)
        if headers:
            return headers
    running = Context.current()
    if running is None or running.delivery.traceparent is None:
        return {}
    state = running.delivery.tracestate
    return {"traceparent": running.delivery.traceparent} | ({"tracestate": state} if state else {})
