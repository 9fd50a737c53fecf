"""W3C trace context: if OpenTelemetry is installed, a task runs in a span that continues the trace of its enqueue."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sluice_client.context import Delivery

try:
    from opentelemetry import propagate, trace
    from opentelemetry.util.types import Attributes
except ImportError:  # it is optional
    INSTALLED = False
else:
    INSTALLED = True


@contextmanager
def traced(task: str, delivery: Delivery) -> Iterator[Callable[[str], None]]:
    """Run a block in a span. What is yielded marks the span as failed, with a text."""
    if not INSTALLED or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):  # nobody records spans
        yield lambda text: None
        return
    names = {"traceparent": delivery.traceparent, "tracestate": delivery.tracestate}
    parent = propagate.extract({name: value for name, value in names.items() if value})
    about: Attributes = {
        "messaging.system": "sluice",
        "messaging.message.id": delivery.id,
        "sluice.attempt": delivery.attempt,
    }
    tracer = trace.get_tracer("sluice_client")
    with tracer.start_as_current_span(f"run {task}", parent, trace.SpanKind.CONSUMER, about) as span:
        yield lambda text: span.set_status(trace.Status(trace.StatusCode.ERROR, text))
