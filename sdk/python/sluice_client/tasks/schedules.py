"""What a program declares of queues and schedules, for `sluice apply --app`."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, TypedDict

from sluice_client.models import CatchUp, ScheduleBody
from sluice_client.tasks.calls import Call
from sluice_client.tasks.durations import Duration, seconds_of
from sluice_client.tasks.faults import DefinitionError
from sluice_client.tasks.options import instant

_SECONDS = {"every": "every_seconds", "phase": "phase_seconds", "jitter": "jitter_seconds"}
_INSTANTS = frozenset({"at", "start_at", "end_at"})


class ScheduleOptions(TypedDict, total=False):
    """When a schedule fires: one of `cron`, `every` and `at`, and what else there is to say about it."""

    cron: str
    """Five fields as Debian reads them, "@daily", or "every 15 minutes"."""
    every: Duration
    at: datetime
    timezone: str
    phase: Duration
    seconds: bool
    """The cron expression has six fields."""
    dst: Literal["once", "skip", "twice"]
    overlap: Literal["skip", "buffer_one", "buffer_all", "cancel_other", "allow_all"]
    catch_up: CatchUp
    jitter: Duration
    start_at: datetime
    end_at: datetime
    max_runs: int
    pause_after_failures: int
    on_complete: Call[Any]
    """Enqueued when a run has ended: its task and all that followed from it."""


class Declarations:
    """Collects definitions. Queues are those of `sluice.queue(…)` alone: naming one in a task does not create it."""

    def __init__(self) -> None:
        self._queues: dict[str, dict[str, Any]] = {}
        self._schedules: dict[str, dict[str, Any]] = {}

    def queue(self, name: str, definition: Mapping[str, Any]) -> None:
        """Raises DefinitionError if it has been declared."""
        if name in self._queues:
            raise DefinitionError(f"the queue {name} is declared twice")
        self._queues[name] = dict(definition)

    def schedule(self, name: str, call: Call[Any], options: Mapping[str, Any]) -> None:
        """Raises DefinitionError if it has been declared, or for options that make no schedule."""
        if name in self._schedules:
            raise DefinitionError(f"the schedule {name} is declared twice")
        try:
            self._schedules[name] = schedule_body(call, options)
        except ValueError as error:
            raise DefinitionError(f"the schedule {name}: {error}") from None

    def document(self) -> dict[str, Any]:
        """Return the sections of `POST /definitions/apply` that have something in them."""
        sections = {"queues": self._queues, "schedules": self._schedules}
        return {name: dict(section) for name, section in sections.items() if section}


def schedule_body(call: Call[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of `PUT /schedules/{id}`. Raises ValueError."""
    known = frozenset(ScheduleOptions.__annotations__)
    for name in options:
        if name not in known:
            raise ValueError(f"there is no option {name}; there are {', '.join(sorted(known))}")
    if sum(options.get(name) is not None for name in ("cron", "every", "at")) != 1:
        raise ValueError("say when, with one of cron, every and at")
    fields = frozenset(ScheduleBody.__annotations__)
    enqueue = call.body()
    for name in enqueue.keys() - fields:
        if name in call.own_fields:
            raise ValueError(f"a schedule enqueues its tasks without {name}")
    body = {name: value for name, value in enqueue.items() if name in fields} | {"queue": call.queue}
    for name, value in options.items():
        if name in _SECONDS:
            body[_SECONDS[name]] = seconds_of(value)
        elif name in _INSTANTS:
            body[name] = instant(value, name)
        elif name == "on_complete":
            body[name] = value.on_complete()
        else:
            body[name] = value
    return body
