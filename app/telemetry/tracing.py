"""Traces: W3C context comes in, is stored with the task and goes out to the handler; with OTLP configured, Sluice adds spans.

1. An enqueue may have `traceparent` and `tracestate`. Values that are not valid W3C are ignored, never refused.
2. Tracing off (no OTLP endpoint): the context is stored and sent on unchanged, and its trace id is in the attempt's record.
No OpenTelemetry code is imported.
3. Tracing on: the request's server span is the parent of a producer span `enqueue <queue>`, whose context is stored. The
first attempt, if it starts soon, is its child: a consumer span `attempt <queue>`. Retries and late attempts start a trace of
their own, linked to the enqueue, because a trace that stays open for hours is useless. The handler gets the attempt's
context.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import TracebackType
from typing import Any, Final, Protocol, Self, cast

LATE_SECONDS: Final = 60.0

MAX_TRACESTATE: Final = 512
MAX_TRACESTATE_MEMBERS: Final = 32

TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
TRACESTATE_KEY: Final = re.compile(r"[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}|[a-z][a-z0-9_*/-]{0,255}")
TRACESTATE_VALUE: Final = re.compile(r"[ -+\--<>-~]{0,255}[!-+\--<>-~]")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A valid W3C trace context."""

    traceparent: str
    tracestate: str | None = None

    @property
    def trace_id(self) -> str:
        return self.traceparent[3:35]

    @property
    def span_id(self) -> str:
        return self.traceparent[36:52]

    def headers(self) -> list[tuple[str, str]]:
        if self.tracestate is None:
            return [("traceparent", self.traceparent)]
        return [("traceparent", self.traceparent), ("tracestate", self.tracestate)]

    @classmethod
    def parse(cls, traceparent: str | None, tracestate: str | None = None) -> Self | None:
        """Return the context in these headers; None if it is absent or invalid."""
        if traceparent is None:
            return None
        match = TRACEPARENT.fullmatch(traceparent)
        if match is None:
            return None
        version, trace_id, span_id, _flags, rest = match.groups()
        unknown = version == "ff" or (version == "00" and rest is not None)
        if unknown or trace_id == "0" * 32 or span_id == "0" * 16:
            return None
        return cls(traceparent, tracestate if tracestate and _is_tracestate(tracestate) else None)


def _is_tracestate(text: str) -> bool:
    if len(text) > MAX_TRACESTATE:
        return False
    members = [member.strip(" \t") for member in text.split(",")]
    pairs = [member.partition("=") for member in members if member]
    keys = {key for key, _, _ in pairs}
    if len(pairs) > MAX_TRACESTATE_MEMBERS or len(keys) != len(pairs):
        return False
    return all(TRACESTATE_KEY.fullmatch(key) and TRACESTATE_VALUE.fullmatch(value) for key, _, value in pairs)


class EnqueueSpan(Protocol):
    """The span of one enqueue request; `context` is what its tasks store."""

    context: TraceContext | None

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...


class AttemptSpan(Protocol):
    """The span of one call; `context` is sent with it, and `trace_id` is in the attempt's record."""

    context: TraceContext | None

    @property
    def trace_id(self) -> str | None: ...

    def end(self, outcome: str, status: int | None = None) -> None: ...


class Tracing(Protocol):
    """Tracing of one Sluice instance."""

    enabled: bool

    def instrument(self, app: Any) -> None:
        """Add server spans to the FastAPI application. Call it before the first request."""

    def enqueue(self, queue: str, tenant: str, incoming: TraceContext | None, tasks: int = 1) -> EnqueueSpan: ...

    def attempt(
        self, queue: str, tenant: str, task: str, number: int, stored: TraceContext | None, age_seconds: float
    ) -> AttemptSpan:
        """Start the span of an attempt. `number` counts claims from 1; `age_seconds` is the time since the enqueue."""

    async def aclose(self) -> None:
        """Send the remaining spans; waits a few seconds at most."""


class _Passage:
    """Stands in for a span when tracing is off: passes the context through."""

    __slots__ = ("context",)

    def __init__(self, context: TraceContext | None) -> None:
        self.context = context

    @property
    def trace_id(self) -> str | None:
        return None if self.context is None else self.context.trace_id

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        return

    def end(self, outcome: str, status: int | None = None) -> None:
        return


class TracingOff:
    enabled = False

    def instrument(self, app: Any) -> None:
        return

    def enqueue(self, queue: str, tenant: str, incoming: TraceContext | None, tasks: int = 1) -> EnqueueSpan:
        return _Passage(incoming)

    def attempt(
        self, queue: str, tenant: str, task: str, number: int, stored: TraceContext | None, age_seconds: float
    ) -> AttemptSpan:
        return _Passage(stored)

    async def aclose(self) -> None:
        return


def traces_endpoint(environ: Mapping[str, str]) -> str | None:
    """Return the OTLP endpoint from OpenTelemetry's own variables; None if tracing is not configured."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    own = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return own or (base.rstrip("/") + "/v1/traces" if base else None)


def build_tracing(endpoint: str | None, *, version: str, replica: str) -> Tracing:
    """Build tracing to this endpoint, or TracingOff for None."""
    if endpoint is None:
        return TracingOff()
    # Imported on demand: 330 ms and 6 MB that most installations never use.
    otlp = import_module("app.telemetry.otlp")
    return cast(Tracing, otlp.OtlpTracing(endpoint, version=version, replica=replica))
