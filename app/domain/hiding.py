"""What a caller is shown of content: payloads, results, excerpts, progress, and what handlers said of errors.

Verbs pass whatever shows content through `shown_to`. Nothing else decides what is hidden.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from app.domain.actions import ActionView
from app.domain.callers import Caller
from app.domain.definitions import DefinitionChange, FieldChange
from app.domain.schedules.definitions import ScheduleView
from app.domain.signatures import ErrorGroup
from app.domain.views import AttemptView, TaskView

View = TypeVar("View")
NULL: Final = msgspec.Raw(b"null")


def shown_to(caller: Caller, view: View) -> View:
    """Return a view as the caller may see it: without its content, if that is hidden from the key."""
    return view if caller.payloads else _HIDE[type(view)](view)


def _task(view: TaskView) -> TaskView:
    nothing: dict[str, Any] = dict.fromkeys(("result", "progress", "last_error"))
    return replace(view, payload=NULL, payload_base64=UNSET, result_encoding=UNSET, content_hidden=True, **nothing)


def _attempt(view: AttemptView) -> AttemptView:
    return replace(view, error=None, excerpt=None, content_hidden=True)


def _schedule(view: ScheduleView) -> ScheduleView:
    then = None if view.on_complete is None else replace(view.on_complete, payload=NULL)
    return replace(view, payload=NULL, on_complete=then, content_hidden=True)


def _action(view: ActionView) -> ActionView:
    return replace(
        view, filter={name: value for name, value in view.filter.items() if name != "error"}, content_hidden=True
    )


def _errors(view: ErrorGroup) -> ErrorGroup:
    return replace(view, signature=None, example=replace(view.example, error=None), content_hidden=True)


def _change(view: DefinitionChange) -> DefinitionChange:
    return dataclasses.replace(view, fields=tuple(map(_field, view.fields)))


def _field(change: FieldChange) -> FieldChange:
    if change.field in ("payload", "on_complete", "on_complete.payload"):
        return FieldChange(change.field, None, None, content_hidden=True)
    return change


_HIDE: dict[type, Callable[[Any], Any]] = {
    TaskView: _task,
    AttemptView: _attempt,
    ErrorGroup: _errors,
    ScheduleView: _schedule,
    DefinitionChange: _change,
    ActionView: _action,
}


def shown_test(caller: Caller, tried: dict[str, Any]) -> dict[str, Any]:
    """Return what is shown of a test delivery: what was sent, and what the handler answered."""
    if caller.payloads:
        return tried
    received = None if tried["received"] is None else tried["received"] | {"body": None}
    return tried | {"sent": tried["sent"] | {"body": None}, "received": received, "error": None, "content_hidden": True}
