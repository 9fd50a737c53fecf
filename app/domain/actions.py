"""Actions on all tasks that match a filter: what may be asked, and how an action is shown."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct

from app.domain.bodies import ContentHidden
from app.domain.errors import FieldError, invalid
from app.domain.ids import Uuid, parse_uuid
from app.domain.instants import Instant, format_instant, instant_text, read_instant
from app.domain.names import Name
from app.domain.signatures import signature
from app.domain.tasks import MAX_DELAY_SECONDS, MAX_LABEL, Label, Priority, Reason, State, TaskFilters
from app.domain.texts import text_problem
from app.domain.views import TaskView

AskedKind = Literal["cancel", "retry", "redrive", "purge", "reschedule", "set_priority"]
Kind = Literal[AskedKind, "empty", "move"]
"""SQS clients start the last two: `empty` cancels all unfinished tasks of a queue, `move` sends what waits there to others."""
ActionState = Literal["running", "done", "cancelled"]
MAX_REASON = 500
MAX_ERROR = 2000
MAX_ERRORS = 20
SAMPLE = 10
TAKES: Final[Mapping[str, tuple[frozenset[State], str]]] = {
    "cancel": (frozenset({State.SCHEDULED, State.READY, State.RUNNING}), "unfinished"),
    "retry": (frozenset({State.DEAD, State.CANCELLED, State.SCHEDULED}), "revivable"),
    "redrive": (frozenset({State.DEAD}), "dead"),
    "purge": (frozenset({State.SCHEDULED, State.READY}), "waiting"),
    "reschedule": (frozenset({State.SCHEDULED, State.READY}), "waiting"),
    "set_priority": (frozenset({State.SCHEDULED, State.READY}), "waiting"),
    "empty": (frozenset({State.SCHEDULED, State.READY, State.RUNNING}), "unfinished"),
    "move": (frozenset({State.SCHEDULED, State.READY}), "waiting"),
}
"""In which states an action takes tasks, and the name of that set in store/task_lists.py."""


ErrorText = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_ERROR,
        description="A signature from `GET /queues/{name}/errors`, or an error that has it.",
    ),
]
Rate = Annotated[float, Meta(ge=0.001, le=100_000)]
Why = Annotated[str, Meta(max_length=MAX_REASON)]


class FilterBody(Struct, forbid_unknown_fields=True):
    """Which tasks: the filters of `GET /tasks`, and `error`. At least one is needed."""

    queue: Name | None = None
    state: State | None = None
    reason: Reason | None = None
    type: Label | None = None
    tag: Label | None = None
    handler: Name | None = None
    correlation_id: Label | None = None
    schedule: Name | None = None
    batch: Uuid | None = None
    ended_from: Instant | None = None
    ended_to: Instant | None = None
    error: ErrorText | None = None


class ActionBody(Struct, forbid_unknown_fields=True):
    kind: AskedKind
    filter: FilterBody
    run_at: Annotated[Instant | None, Meta(description="Of `reschedule`: when the tasks are to run.")] = None
    priority: Annotated[Priority | None, Meta(description="Of `set_priority`.")] = None
    rate_per_second: Annotated[Rate | None, Meta(description="Act on at most so many tasks per second.")] = None
    dry_run: Annotated[bool, Meta(description="Only count the matching tasks, and show some.")] = False
    reason: Annotated[Why | None, Meta(description="Why, for whoever reads it later.")] = None


class TaskProblem(Struct, frozen=True):
    task: Uuid
    code: str
    detail: str


class ActionView(Struct, kw_only=True):
    """An action, and how far it is."""

    id: Uuid
    kind: Kind
    filter: Annotated[dict[str, Any], Meta(description="The conditions that were named.")]
    run_at: Instant | None
    priority: int | None
    rate_per_second: float | None
    reason: str | None
    state: ActionState
    matched: Annotated[
        int, Meta(description="Tasks that matched when it began; while they are being listed, those found until now.")
    ]
    done: int
    refused: Annotated[
        int, Meta(description="Tasks for which the change is impossible, such as one that has ended meanwhile.")
    ]
    failed: Annotated[int, Meta(description="Tasks that an internal error kept from being changed.")]
    errors: Annotated[
        list[TaskProblem], Meta(max_length=MAX_ERRORS, description="Of the first tasks refused or failed.")
    ]
    content_hidden: ContentHidden = UNSET
    created_by: Annotated[str | None, Meta(description="The id of the key; null without one.")]
    created_at: Instant
    ended_at: Instant | None


class ActionPreview(Struct):
    """What an action would act on."""

    matched: int
    complete: Annotated[bool, Meta(description="Whether all were counted; otherwise there are at least `matched`.")]
    sample: Annotated[list[TaskView], Meta(max_length=SAMPLE)]


class ActionRequest(Struct, frozen=True):
    """A validated request."""

    kind: Kind
    filters: TaskFilters
    error: str | None
    """A signature."""
    shown: dict[str, Any]
    """The filter as it is shown."""
    run_at: datetime | None = None
    priority: int | None = None
    rate_per_second: float | None = None
    reason: str | None = None
    idempotency_key: str | None = None


def request_of(body: ActionBody, now: datetime, idempotency_key: str | None = None) -> ActionRequest:
    """Validate a request. Raises Refusal (invalid)."""
    errors: list[FieldError] = []
    filters = _filters_of(body.filter, errors)
    error = None if body.filter.error is None else signature(body.filter.error)
    shown = {name: value for name in body.filter.__struct_fields__ if (value := getattr(body.filter, name)) is not None}
    if not shown:
        errors.append(FieldError("/filter", "must name at least one condition: an action never takes all tasks"))
    if error is not None:
        shown["error"] = error
    states, _ = TAKES[body.kind]
    if filters.state is not None and filters.state not in states:
        named = ", ".join(sorted(states))
        errors.append(FieldError("/filter/state", f"{body.kind} takes tasks that are {named}"))
    run_at = read_instant(body.run_at, "/run_at", errors)
    if run_at is not None and run_at > now + timedelta(seconds=MAX_DELAY_SECONDS):
        errors.append(FieldError("/run_at", f"is more than {MAX_DELAY_SECONDS // 86_400} days in the future"))
    for name, kind in (("run_at", "reschedule"), ("priority", "set_priority")):
        given = getattr(body, name) is not None
        if given and body.kind != kind:
            errors.append(FieldError(f"/{name}", f"applies only to {kind}"))
        elif not given and body.kind == kind:
            errors.append(FieldError(f"/{name}", f"is required for {kind}"))
    if body.reason is not None and (problem := text_problem(body.reason, MAX_REASON, empty=True)):
        errors.append(FieldError("/reason", problem))
    if errors:
        raise invalid(errors)
    return ActionRequest(
        body.kind, filters, error, shown, run_at, body.priority, body.rate_per_second, body.reason, idempotency_key
    )


def _filters_of(body: FilterBody, errors: list[FieldError]) -> TaskFilters:
    for name, longest in (("type", MAX_LABEL), ("tag", MAX_LABEL), ("correlation_id", MAX_LABEL), ("error", MAX_ERROR)):
        text = getattr(body, name)
        if text is not None and (problem := text_problem(text, longest)):
            errors.append(FieldError(f"/filter/{name}", problem))
    batch = None if body.batch is None else parse_uuid(body.batch)
    if body.batch is not None and batch is None:
        errors.append(FieldError("/filter/batch", "is not the id of a batch"))
    return TaskFilters(
        queue=body.queue,
        state=body.state,
        reason=body.reason,
        type=body.type,
        tag=body.tag,
        handler=body.handler,
        correlation_id=body.correlation_id,
        schedule=body.schedule,
        batch=batch,
        ended_from=read_instant(body.ended_from, "/filter/ended_from", errors),
        ended_to=read_instant(body.ended_to, "/filter/ended_to", errors),
    )


_PROBLEMS = {
    "running": ("task_not_editable", "it was running"),
    "held": ("task_not_editable", "another unfinished task has the same unique_key"),
    "orphaned": ("task_not_editable", "its queue, or the handler it names, has been deleted"),
    "not_dead": ("task_not_editable", "it was no longer dead"),
    "ended": ("task_ended", "it had ended"),
    "gone": ("task_not_found", "it was gone, or being moved by somebody else"),
    "failed": ("internal", "an internal error, which the log describes"),
}


def problem_of(task_id: str, why: str) -> TaskProblem:
    """Return what act_v1 says of a task, in words."""
    return TaskProblem(task_id, *_PROBLEMS[why])


def view_of(row: Mapping[str, Any], *, filter: dict[str, Any], errors: Sequence[TaskProblem]) -> ActionView:
    """Return an action from its columns."""
    return ActionView(
        id=row["id"],
        kind=row["kind"],
        filter=filter,
        run_at=instant_text(row["run_at"]),
        priority=row["priority"],
        rate_per_second=row["rate_per_second"],
        reason=row["reason"],
        state=row["state"],
        matched=row["found"] if row["matched"] is None else row["matched"],
        done=row["done"],
        refused=row["refused"],
        failed=row["failed"],
        errors=list(errors),
        created_by=row["created_by"],
        created_at=format_instant(row["created_at"]),
        ended_at=instant_text(row["ended_at"]),
    )
