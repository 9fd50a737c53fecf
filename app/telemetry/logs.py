"""JSON log lines: structlog in front, the stdlib's formatter behind, libraries through the same handler.

The process's entry point calls `configure` once; nothing else here is global. `get_logger` returns a logger bound to its constant
fields (`replica`, `queue`, `task`, `attempt`, `trace_id`, `correlation_id`); a filtered level costs one empty call. The handler
limits how many lines one tenant or an unknown caller can cause. Every line passes through `redact` last, after exceptions have
become fields, so that one rule hides secrets in messages, URLs, nested values and tracebacks.
"""

import asyncio
import json
import logging
import math
import re
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TextIO, cast

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import ExcInfo, FilteringBoundLogger

from app.telemetry.events import LINES_LEFT_OUT

LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

HIDDEN: Final = "***"
MAX_TEXT: Final = 2_000
MAX_DEPTH: Final = 12
MAX_FRAMES: Final = 20
LINES_A_MINUTE: Final = 100
MINUTE_SECONDS: Final = 60.0

# Libraries whose info lines are of no interest to operators.
QUIET: Final = ("alembic", "apscheduler", "asyncio", "httpx", "httpcore", "opentelemetry", "urllib3")

# Fields that are never logged, whatever they contain. A task's payload and a handler's headers are user data.
SECRET_KEYS: Final = frozenset(
    {"authorization", "body", "cookie", "headers", "lease_token", "password", "payload", "secret", "set-cookie"}
    | {"sluice-lease-token", "webhook-signature"}
)
SECRET_TEXT: Final = (
    (re.compile(r"\bwhsec_[A-Za-z0-9+/=_-]+"), "whsec_" + HIDDEN),
    (re.compile(r"\bslk_[A-Za-z0-9_-]+"), "slk_" + HIDDEN),
    (
        re.compile(
            r"""(?i)\b(authorization|sluice-lease-token)\b(["']*\s*[:=,]\s*(?:b?["'])?)(?:[A-Za-z]+\s+)?[^\s"',;)}]+"""
        ),
        rf"\1\2{HIDDEN}",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {HIDDEN}"),
    # Greedy up to the last @ before the path, because a password may contain an @.
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://[^\s:/@]*):[^\s/]*@"), rf"\1:{HIDDEN}@"),
    (re.compile(r"""(?i)\b(password|sslpassword)(["']?\s*[=:]\s*)('[^']*'|"[^"]*"|[^\s&'",;]+)"""), rf"\1\2{HIDDEN}"),
    # asyncpg quotes the argument it could not encode, which may be a payload.
    (re.compile(r"(?s)(invalid input for query argument \$\d+: ).*"), rf"\1{HIDDEN}"),
)
# One cheap search tells whether any rule can match; most strings match none.
SUSPECT: Final = re.compile(r"(?i)whsec_|slk_|authorization|lease-token|bearer|basic|://|password|query argument")

_REQUEST: ContextVar[tuple[bytes, "asyncio.Task[Any] | None"] | None] = ContextVar("request", default=None)
"""The id of the request that is served, and the task that serves it."""


def get_logger(name: str, **fields: object) -> FilteringBoundLogger:
    """Return a logger that adds its name and the given fields to every line."""
    return cast(FilteringBoundLogger, structlog.stdlib.get_logger(name, **fields))


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Send this process's log lines to `stream` (stderr by default): as JSON, or to a terminal as people read them.

    Called once, by the entry point.
    """
    number, stream = LEVELS[level], stream or sys.stderr
    handler = LineHandler(stream)
    handler.setFormatter(formatter(for_people=stream.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(logging.NOTSET)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            add_request_id,
            add_level,
            ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def name_replica(name: str) -> None:
    """Add the replica's name to every line from here on, including those of tasks started later."""
    structlog.contextvars.bind_contextvars(replica=name)


def name_request(request_id: bytes) -> None:
    """Add the request's id to every line that this task causes."""
    _REQUEST.set((request_id, asyncio.current_task()))


def add_request_id(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Not to lines of tasks that a request has started: those that write groups, for example, serve others as well."""
    found = _REQUEST.get()
    if found is not None and found[0]:
        with suppress(RuntimeError):  # in a thread
            if asyncio.current_task() is found[1]:
                event["request_id"] = found[0].decode()
    return event


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes lines, at most `LINES_A_MINUTE` per kind and tenant: otherwise requests or failing tasks could cause thousands per
    second. A minute after the first line, it logs how many were dropped.

    A line that cannot be written is dropped, because the stdlib's error message would print its arguments unredacted.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._clock = clock
        self._minutes: dict[Kind, Minute] = {}
        """The oldest first."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.INFO:  # whoever enables debug lines wants all of them
            super().emit(record)
            return
        self.say_left_out()
        now = self._clock()
        minute = self._minutes.setdefault(kind_of(record), Minute(now))
        if minute.lines < LINES_A_MINUTE:
            minute.lines += 1
            super().emit(record)
            return
        minute.left_out += 1
        if minute.left_out == 1:
            # without a loop, the next line of any kind reports it, or the end of the process
            with suppress(RuntimeError):
                loop = asyncio.get_running_loop()
                loop.call_later(minute.began + MINUTE_SECONDS - now, self.say_left_out)

    def say_left_out(self, *, ending: bool = False) -> None:
        """Log how many lines of each kind were dropped in the minute that has passed, or is `ending` now."""
        self.acquire()
        try:
            until = math.inf if ending else self._clock() - MINUTE_SECONDS
            while self._minutes and (oldest := next(iter(self._minutes.items())))[1].began <= until:
                kind, minute = oldest
                del self._minutes[kind]
                if minute.left_out:
                    super().emit(_left_out(kind, minute.left_out))
        finally:
            self.release()

    def close(self) -> None:
        self.say_left_out(ending=True)
        super().close()

    def handleError(self, record: logging.LogRecord) -> None:
        return


class Kind(NamedTuple):
    """What lines counted together have in common: the event, or the place in a library that logs."""

    event: str
    tenant: str | None


@dataclass(slots=True)
class Minute:
    began: float
    lines: int = 0
    left_out: int = 0


def kind_of(record: logging.LogRecord) -> Kind:
    if isinstance(record.msg, dict):
        return Kind(str(record.msg["event"]), record.msg.get("tenant"))
    return Kind(f"{record.name}:{record.module}:{record.lineno}", None)


def _left_out(kind: Kind, lines: int) -> logging.LogRecord:
    level, name = LINES_LEFT_OUT.level, logging.getLevelName(LINES_LEFT_OUT.level).lower()
    said: dict[str, Any] = {"event": LINES_LEFT_OUT.name, "of": kind.event, "tenant": kind.tenant, "lines": lines}
    said = {**structlog.contextvars.get_contextvars(), **said, "level": name}
    record = logging.LogRecord(__name__, level, __file__, 0, said, None, None)
    record.__dict__.update(_logger=None, _name=name)  # this is how ProcessorFormatter recognises structlog's records
    return record


def formatter(*, for_people: bool = False) -> ProcessorFormatter:
    """Return the formatter of all lines, for Sluice's events and library records alike."""
    return ProcessorFormatter(
        foreign_pre_chain=[structlog.contextvars.merge_contextvars, add_request_id, add_level],
        processors=[
            add_logger_name,
            ProcessorFormatter.remove_processors_meta,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
            structlog.processors.ExceptionRenderer(describe_exception),
            redact,
            render_for_people if for_people else render,
        ],
    )


def add_level(_logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["level"] = "error" if method in ("exception", "critical", "fatal") else method
    return event


def add_logger_name(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["logger"] = event["_record"].name
    return event


# Without locals, because frames hold payloads, headers and keys.
_exceptions = ExceptionDictTransformer(show_locals=False, max_frames=MAX_FRAMES)


def describe_exception(exc_info: ExcInfo) -> list[dict[str, Any]]:
    """Return an exception's chain: type, first line of the message, frames.

    Only the first line, because Postgres puts whole rows, payloads included, into the DETAIL that follows.
    """
    return [
        {
            "type": stack["exc_type"],
            "message": stack["exc_value"].partition("\n")[0][:MAX_TEXT],
            "frames": [f"{frame['filename']}:{frame['lineno']} {frame['name']}" for frame in stack["frames"]],
        }
        for stack in _exceptions(exc_info)
    ]


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Hide secrets in any string, and cut what is too long for a log line."""
    return {key: clean_field(key, value, 0) for key, value in event.items()}


def clean_field(key: str, value: Any, depth: int) -> Any:
    return HIDDEN if key.lower() in SECRET_KEYS else clean(value, depth)


def clean(value: Any, depth: int) -> Any:
    """Return a JSON value without secrets. Other types become text, and bytes only their length."""
    if isinstance(value, str):
        return clean_text(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    if depth >= MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {str(key): clean_field(str(key), item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [clean(item, depth + 1) for item in value]
    return clean_text(str(value))


def clean_text(text: str) -> str:
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + "…"
    if SUSPECT.search(text) is None:
        return text
    for pattern, replacement in SECRET_TEXT:
        text = pattern.sub(replacement, text)
    return text


def render(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """Return one line that begins with the three most important fields. ASCII, so that a lone surrogate does not lose the line."""
    head = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return json.dumps({**head, **event})


_console = structlog.dev.ConsoleRenderer(pad_event_to=24, sort_keys=False)


def render_for_people(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
    """Return one line without what is the same on every line: the replica, the module, the date."""
    told = {key: value for key, value in event.items() if key not in ("logger", "replica")}
    told["timestamp"] = str(told["timestamp"])[11:19]
    if (
        raised := told.pop("exception", None)
    ) is not None:  # in a word: the console writes tracebacks, and only of text
        told["raised"] = ", from ".join(f"{part['type']}: {part['message']}" for part in raised)
    return _console(logger, method, told)
