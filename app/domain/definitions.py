"""Definitions as code: a document of what should exist, and how it differs from what does.

A document does not manage the sections that it leaves out: nothing of their kind is compared, changed or pruned.
"""

import heapq
import json
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from app.domain.callbacks import callbacks_to_dict, called_queues
from app.domain.conditions import etag_of
from app.domain.errors import FieldError, pointer
from app.domain.handlers import HIDDEN, HandlerDefinition, handler_secrets, handler_to_dict
from app.domain.limits import LimitDefinition, Limits, limit_to_dict
from app.domain.queues import QueueDefinition, queue_to_dict
from app.domain.schedules.definitions import ScheduleDefinition, schedule_to_dict
from app.domain.sources import ADDRESSED, SourceDefinition, source_to_dict

Kind = Literal["named_limit", "handler", "queue", "schedule", "source", "limits"]
Action = Literal["create", "update", "delete", "unchanged"]
SECTIONS: dict[str, Kind] = {
    "named_limits": "named_limit",
    "handlers": "handler",
    "queues": "queue",
    "schedules": "schedule",
    "sources": "source",
    "limits": "limits",
}
"""In the order in which they are applied: a definition comes after what it refers to. Pruning goes the other way."""
MAX_DEFINITIONS = 5_000
MAX_VERSION = 100


@dataclass(frozen=True, slots=True)
class Document:
    """What should exist. None: the section is absent."""

    named_limits: Mapping[str, LimitDefinition] | None = None
    handlers: Mapping[str, HandlerDefinition] | None = None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Signing secrets by handler. A handler without one gets a generated secret when it is created, and keeps it."""
    queues: Mapping[str, QueueDefinition] | None = None
    schedules: Mapping[str, ScheduleDefinition] | None = None
    sources: Mapping[str, SourceDefinition] | None = None
    limits: Limits | None = None
    prune: bool = False
    """Delete what this owner has and the document leaves out, in the sections that are present."""
    owner: str | None = None
    """Who manages what the document defines. None: existing definitions keep their owner, new ones have none."""


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One changed field; nested names are joined by dots. Values are as in JSON, payloads and schemas as text."""

    field: str
    before: Any
    after: Any
    content_hidden: bool = False

    def hidden(self) -> "FieldChange":
        """Return the change without its values: that it differs, but not how."""
        before, after = (None if value is None else HIDDEN for value in (self.before, self.after))
        return FieldChange(self.field, before, after)


@dataclass(frozen=True, slots=True)
class DefinitionChange:
    kind: Kind
    name: str | None
    """None for the limits, which have no name."""
    action: Action
    fields: tuple[FieldChange, ...] = ()
    etag: str | None = None
    """ETag of what exists; None if nothing does."""


def handler_changes(
    before: HandlerDefinition | None, old_secret: str | None, after: HandlerDefinition, secret: str | None
) -> tuple[FieldChange, ...]:
    """Compare handlers. Values of headers and secrets are compared but not shown; an old secret of None could not be read."""
    default = HandlerDefinition(url="") if after.kind == "webhook" else HandlerDefinition(kind=after.kind)
    after = after.with_kept(before)
    shown = handler_to_dict(before or default), handler_to_dict(after)
    headers = [plain.pop("headers", {}) for plain in shown]
    found = list(_differences(shown[0], shown[1]))
    found += [change.hidden() for change in _differences(headers[0], headers[1], "headers.")]
    sealed = {} if before is None else handler_secrets(before), handler_secrets(after)
    found += [FieldChange(name, sealed[0].get(name), sealed[1].get(name)).hidden() for name in _changed(*sealed)]
    lost = before is not None and old_secret is None
    if lost or (secret is not None and secret != old_secret):
        found.append(FieldChange("secret", old_secret, secret or "a new one").hidden())
    return _of_new(found) if before is None else tuple(found)


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]


def queue_changes(before: QueueDefinition | None, after: QueueDefinition) -> tuple[FieldChange, ...]:
    found = _differences(_queue(before or QueueDefinition()), _queue(after))
    return _of_new(found) if before is None else tuple(found)


def called_first(queues: Mapping[str, QueueDefinition], there: Container[str] = ()) -> list[str]:
    """Return the names in an order in which each queue comes after those that its callbacks name and that are not `there`. Where
    these form a circle, one of them comes too early."""
    return _ordered({name: called - {one for one in called if one in there} for name, called in _named(queues).items()})


def called_last(queues: Mapping[str, QueueDefinition]) -> list[str]:
    """Return the names in an order in which each queue comes before those that its callbacks name, with the same exception."""
    callers: dict[str, set[str]] = {name: set() for name in queues}
    for name, called in _named(queues).items():
        for one in called:
            callers[one].add(name)
    return _ordered(callers)


def _named(queues: Mapping[str, QueueDefinition]) -> dict[str, set[str]]:
    """Return, for each queue, those among the others that its callbacks name."""
    return {
        name: ({*called_queues(callbacks_to_dict(queue.callbacks)).values()} & queues.keys()) - {name}
        for name, queue in queues.items()
    }


def _ordered(waits: dict[str, set[str]]) -> list[str]:
    """Return the names so that each comes after those it waits for; otherwise ascending."""
    waiting: dict[str, list[str]] = {name: [] for name in waits}
    for name, others in waits.items():
        for other in others:
            waiting[other].append(name)
    left, order = dict.fromkeys(sorted(waits)), list[str]()
    ready = [name for name in left if not waits[name]]
    while left:
        name = heapq.heappop(ready) if ready else next(iter(left))
        del left[name]
        order.append(name)
        for other in waiting[name]:
            waits[other].discard(name)
            if not waits[other] and other in left:
                heapq.heappush(ready, other)
    return order


def schedule_changes(before: ScheduleDefinition | None, after: ScheduleDefinition) -> tuple[FieldChange, ...]:
    default = ScheduleDefinition(queue="", payload=b"null")
    found = _differences(schedule_to_dict(before or default), schedule_to_dict(after))
    return _of_new(found) if before is None else tuple(found)


def source_changes(before: SourceDefinition | None, after: SourceDefinition) -> tuple[FieldChange, ...]:
    """Compare sources. `after` has the secrets that it keeps; they are compared but not shown."""
    default = SourceDefinition(kind=after.kind, queue="").complete
    found = list(_differences(source_to_dict(before or default), source_to_dict(after)))
    old, new = ({} if one is None else msgspec.to_builtins(one.secrets) for one in (before, after))
    found += [
        FieldChange(name, old.get(name), new.get(name)).hidden() for name in ADDRESSED if old.get(name) != new.get(name)
    ]
    return _of_new(found) if before is None else tuple(found)


def named_limit_changes(before: LimitDefinition | None, after: LimitDefinition) -> tuple[FieldChange, ...]:
    found = _differences(limit_to_dict(before or LimitDefinition()), limit_to_dict(after))
    return _of_new(found) if before is None else tuple(found)


def limits_changes(before: Limits, after: Limits) -> tuple[FieldChange, ...]:
    return tuple(_differences(limit_to_dict(before), limit_to_dict(after)))


def _queue(definition: QueueDefinition) -> dict[str, Any]:
    schema = definition.payload_schema
    return queue_to_dict(definition) | {"payload_schema": None if schema is None else msgspec.Raw(schema.encode())}


def _of_new(found: Iterable[FieldChange]) -> tuple[FieldChange, ...]:
    """Return the changes of a new definition, which have no old values."""
    return tuple(FieldChange(change.field, None, change.after) for change in found if change.after is not None)


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], where: str = "") -> Iterator[FieldChange]:
    for name in [*before, *(name for name in after if name not in before)]:
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{where}{name}.")
        elif not _equal(old, new):
            yield FieldChange(where + name, old, new)


def _equal(old: Any, new: Any) -> bool:
    if isinstance(old, msgspec.Raw) and isinstance(new, msgspec.Raw):
        old, new = _value(old), _value(new)
    return bool(old == new)


def _value(text: msgspec.Raw) -> Any:
    """Return a value for comparing: spaces and member order do not count, the spelling of a number does, and true is not 1."""

    def number(written: str) -> tuple[str]:
        return (written,)

    return json.loads(bytes(text), parse_int=number, parse_float=number)


def version_of(changes: list[DefinitionChange], wanted: Mapping[str, Any]) -> str:
    """Return a strong ETag over what was found and what is wanted: it changes when either does."""
    found = [
        [change.kind, change.name, change.action, change.etag, *(field.field for field in change.fields)]
        for change in changes
    ]
    return etag_of({"found": found, "wanted": dict(wanted)})


def owner_change(before: str | None, after: str | None) -> tuple[FieldChange, ...]:
    """Return the change of owner, if another document managed this before."""
    return () if after is None or after == before else (FieldChange("owner", before, after),)


def name_faults(
    document: Document, there: Mapping[str, set[str]], kept: Mapping[str, set[str]] | None = None
) -> Iterator[FieldError]:
    """Yield references to what neither the document nor the service (`there`, by section) will have. `kept` is what a prune
    leaves, because it has another owner."""

    def known(section: Literal["handlers", "queues", "named_limits"]) -> set[str]:
        given = getattr(document, section)
        if given is None:
            return there[section]
        return set(given) | ((kept or {}).get(section, set()) if document.prune else there[section])

    handlers, queues, limits = known("handlers"), known("queues"), known("named_limits")
    for section in ("handlers", "queues", "schedules"):
        for name, definition in (getattr(document, section) or {}).items():
            for index, use in enumerate(definition.limits):
                if use.name not in limits:
                    yield FieldError(
                        pointer(section, name, "limits", index, "name"),
                        f"there is no limit {use.name}; define it here or create it first",
                    )
    for name, queue in (document.queues or {}).items():
        if queue.handler is not None and queue.handler not in handlers:
            yield FieldError(
                f"/queues/{name}/handler", f"there is no handler {queue.handler}; define it here or create it first"
            )
        for state, called in called_queues(callbacks_to_dict(queue.callbacks)).items():
            if called not in queues:
                yield FieldError(
                    f"/queues/{name}/callbacks/{state}/queue",
                    f"there is no queue {called}; define it here or create it first",
                )
    for name, source in (document.sources or {}).items():
        if source.queue not in queues:
            yield FieldError(
                pointer("sources", name, "queue"),
                f"there is no queue {source.queue}; define it here or create it first",
            )
    for name, schedule in (document.schedules or {}).items():
        where = f"/schedules/{name}"
        if schedule.queue not in queues:
            yield FieldError(f"{where}/queue", f"there is no queue {schedule.queue}; define it here or create it first")
        if schedule.handler is not None and schedule.handler not in handlers:
            yield FieldError(
                f"{where}/handler", f"there is no handler {schedule.handler}; define it here or create it first"
            )
        then = schedule.on_complete
        if then is not None and then.queue not in queues:
            yield FieldError(
                f"{where}/on_complete/queue", f"there is no queue {then.queue}; define it here or create it first"
            )
