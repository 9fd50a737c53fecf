"""What a task, a job or a single call may be given beside its arguments, and what an enqueue says for it."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Literal, TypedDict

from sluice_client.tasks.backoff import Backoff, backoff_of
from sluice_client.tasks.durations import Duration, seconds_of
from sluice_client.tasks.templates import Template

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Options(TypedDict, total=False):
    """Options of tasks and jobs. What is left out is the queue's."""

    tries: int
    """How many attempts, the first included."""
    backoff: Backoff
    """How long to wait after a failure: exponential(1, 600), fixed(60), or a list of waits."""
    timeout: Duration
    """How long an attempt may take."""
    priority: int
    """-100 to 100; higher ones always start first."""
    unique: str
    """At most one unfinished task per queue has it: a template such as "welcome:{user_id}"."""
    on_duplicate: Literal["keep", "replace", "postpone"]
    """What happens to the waiting task with the same `unique`."""
    debounce_max: Duration
    """With "postpone": how long after its creation a task can be postponed to at most."""
    key: str
    """Whose task it is: keys share a queue fairly. A template."""
    ttl: Duration
    """How long it may wait for its first attempt."""
    tags: Sequence[str]
    headers: Mapping[str, str]
    """Sent with every delivery."""
    limits: Sequence[str | Mapping[str, Any]]
    """Named limits that it takes."""
    handler: str
    """Instead of the queue's handler."""
    target: Mapping[str, Any]
    callbacks: Mapping[str, Any]


class CallOptions(Options, total=False):
    """Options of one call."""

    queue: str
    """Instead of the task's own."""
    after: Duration
    """How long from now it may start."""
    at: datetime
    """When it may start; with a time zone."""
    expires_at: datetime
    """When it is too late to start; with a time zone."""
    idempotency_key: str
    """Names the cause: a second call with the same key is the first one's task."""
    correlation_id: str


DECLARED = frozenset(Options.__annotations__) | {"queue"}
CALLED = frozenset(CallOptions.__annotations__)
TEMPLATES = {"unique": "unique_key", "key": "key"}
_RENAMED = {
    "timeout": "timeout_seconds",
    "debounce_max": "debounce_max_seconds",
    "ttl": "ttl_seconds",
    "after": "delay_seconds",
}
_INSTANTS = {"at": "run_at", "expires_at": "expires_at"}
_INSTEAD = {"after": "at", "at": "after", "ttl": "expires_at", "expires_at": "ttl"}
"""One that is given takes the place of the other."""


def check_options(options: Mapping[str, Any], known: frozenset[str], parameters: Sequence[str]) -> None:
    """Raises ValueError for an option that does not exist, has no sensible value, or names no parameter."""
    for name in options:
        if name not in known:
            raise ValueError(f"there is no option {name}; there are {', '.join(sorted(known))}")
    queue = options.get("queue")
    if queue is not None and not (isinstance(queue, str) and _NAME.fullmatch(queue)):
        raise ValueError(
            f"queue: {queue!r} is no name: 1 to 100 of A-Z a-z 0-9 . _ -, beginning with a letter or digit"
        )
    for name, least, most in (("tries", 1, 1000), ("priority", -100, 100)):
        value = options.get(name)
        if value is not None and not (type(value) is int and least <= value <= most):
            raise ValueError(f"{name}: {value!r} is not an integer from {least} to {most}")
    for name in TEMPLATES:
        if options.get(name) is not None:
            Template(options[name]).check(parameters)
    if isinstance(options.get("tags"), str):
        raise ValueError("tags: a list of strings, not one string")
    fields_of(options)


def merged(options: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with those of `over` in their place. None stands for none."""
    kept = {name: value for name, value in options.items() if _INSTEAD.get(name) not in over}
    return {**kept, **over}


def fields_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an enqueue for these options, but for the queue and templates. Raises ValueError."""
    fields: dict[str, Any] = {}
    retry: dict[str, Any] = {}
    for name, value in options.items():
        if value is None or name == "queue" or name in TEMPLATES:
            continue
        if name == "tries":
            retry["max_attempts"] = value
        elif name == "backoff":
            retry["backoff"] = backoff_of(value)
        elif name in _RENAMED:
            fields[_RENAMED[name]] = seconds_of(value)
        elif name in _INSTANTS:
            fields[_INSTANTS[name]] = instant(value, name)
        elif name == "limits":
            fields[name] = [{"name": one} if isinstance(one, str) else dict(one) for one in value]
        elif name == "tags":
            fields[name] = list(value)
        else:
            fields[name] = dict(value) if isinstance(value, Mapping) else value
    return fields | ({"retry": retry} if retry else {})


def instant(value: Any, name: str) -> str:
    """Return an instant as the service takes it. Raises ValueError for one without a time zone."""
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise ValueError(f"{name}: expected a datetime with a time zone, such as datetime.now(timezone.utc)")
    return value.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
