"""Callbacks: the tasks that are enqueued when a task ends, by the state in which it ends.

A queue has some, and a task's own replace them state by state. Which one is meant is decided when the task ends (ended_v1).
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from app.domain.errors import FieldError
from app.domain.names import Name
from app.domain.targets import TargetBody, TaskTarget, read_target
from app.domain.texts import header_text_problem

MAX_CHAIN = 8
"""How many callbacks may follow from one another before none is enqueued. call_back_v1 uses the same number."""
MAX_TYPE = 255

Body = Literal["summary", "payload"]


class Callback(Struct, frozen=True, forbid_unknown_fields=True):
    queue: Annotated[Name, Meta(description="Where the task is enqueued.")]
    body: Annotated[
        Body,
        Meta(
            description="`summary`: the payload says how the task ended. `payload`: the task's own payload and headers, as for a"
            " dead-letter queue."
        ),
    ] = "summary"
    type: Annotated[
        Annotated[str, Meta(min_length=1, max_length=MAX_TYPE)] | None,
        Meta(
            description="The type of the task that is enqueued; null: with `payload` the type of the task, else none."
        ),
    ] = None
    target: Annotated[
        TargetBody | None, Meta(description="Where and how to deliver it, as far as the queue's handler allows.")
    ] = None


class Callbacks(Struct, frozen=True, forbid_unknown_fields=True):
    """Of a queue."""

    succeeded: Callback | None = None
    dead: Callback | None = None
    cancelled: Callback | None = None


class TaskCallbacks(Struct, frozen=True, forbid_unknown_fields=True):
    """Of a task: absent means the queue's."""

    succeeded: Callback | UnsetType | None = UNSET
    dead: Callback | UnsetType | None = UNSET
    cancelled: Callback | UnsetType | None = UNSET


def check_callbacks(callbacks: Callbacks | TaskCallbacks, where: str = "/callbacks") -> list[FieldError]:
    """Return the rules broken that no type expresses."""
    errors: list[FieldError] = []
    for state in callbacks.__struct_fields__:
        callback = getattr(callbacks, state)
        if isinstance(callback, Callback):
            if callback.type is not None and (problem := header_text_problem(callback.type, MAX_TYPE)):
                errors.append(FieldError(f"{where}/{state}/type", problem))
            if callback.target is not None:
                read_target(callback.target, f"{where}/{state}/target", errors)
    return errors


def callbacks_to_dict(callbacks: Callbacks | TaskCallbacks) -> dict[str, Any]:
    """Return the JSON value, by state, without what is absent."""
    found: dict[str, Any] = msgspec.to_builtins(callbacks)
    return found


def target_of(callback: dict[str, Any]) -> TaskTarget | None:
    """Return the target in the JSON value of one callback."""
    target = callback.get("target")
    if target is None:
        return None
    return msgspec.convert({name: given for name, given in target.items() if given is not None}, TaskTarget)


def called_queues(callbacks: dict[str, Any] | None) -> dict[str, str]:
    """Return, by state, the queues that a JSON value names."""
    return {state: callback["queue"] for state, callback in (callbacks or {}).items() if callback is not None}
