"""Limits: how many tasks run at once, and how many start in a while.

A named limit may be keyed: then it holds for each key by itself. Queues, handlers and tasks name the limits that their tasks take.
The tenant's own limits and the operator's grant hold over all queues.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, structs

from app.domain.bodies import faults, with_more
from app.domain.conditions import etag_of
from app.domain.errors import FieldError, pointer
from app.domain.names import Name
from app.domain.texts import MAX_DESCRIPTION, Description, check_text, text_problem

MAX_CONCURRENCY = 100_000
MAX_RATE = 1_000_000_000
MIN_PERIOD_SECONDS = 0.001
MAX_PERIOD_SECONDS = 31 * 86_400
MAX_REFILL_SECONDS = 3660 * 86_400
"""How long a spent burst may take to come back. Beyond it, Postgres could not hold the instant."""
MAX_COST = 1_000_000
MAX_WEIGHT = 1_000
MAX_USES = 4
"""How many named or keyed limits a task may take, beside those of its queue, its handler and its tenant."""
MAX_KEY_BYTES = 128
MAX_DEPTH_OF_KEY = 1_000_000_000
MAX_HOLDERS = 20
BURST_SECONDS = 0.1
"""A rate without a burst admits at once what comes in this time."""
TASKS_KEY = "task"
"""As the key in a use of a limit: the same as none, the task's own."""

KeyState = Literal["full", "waiting"]

# 0 is not a valid limit: to stop a queue, pause it; to stop a handler, disable it.
MaxConcurrency = Annotated[
    int,
    Meta(
        ge=1,
        le=MAX_CONCURRENCY,
        extra={"rule": f"expected 1 to {MAX_CONCURRENCY}, or null for no limit (to stop a queue, pause it)"},
    ),
]
KeyText = Annotated[str, Meta(min_length=1, max_length=MAX_KEY_BYTES, description=f"1-{MAX_KEY_BYTES} bytes of UTF-8.")]


class Rate(Struct, frozen=True, forbid_unknown_fields=True):
    """A token bucket. In any W seconds it admits at most burst + limit x W / period_seconds units, on all replicas together."""

    limit: Annotated[
        float, Meta(gt=0, le=MAX_RATE, description="Units per period; a task costs one unless it says more.")
    ]
    period_seconds: Annotated[float, Meta(ge=MIN_PERIOD_SECONDS, le=MAX_PERIOD_SECONDS)] = 1.0
    burst: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_RATE)] | None,
        Meta(description="Units admitted at once after a pause; null: what 0.1 s brings, at least 1."),
    ] = None

    def __post_init__(self) -> None:
        if self.limit > 0 and not self.capacity * self.period_seconds / self.limit <= MAX_REFILL_SECONDS:
            raise ValueError(
                f"a burst takes more than {MAX_REFILL_SECONDS // 86_400} days to come back; raise the limit"
            )

    @property
    def capacity(self) -> float:
        """The burst in effect, in units."""
        return max(1.0, self.limit / self.period_seconds * BURST_SECONDS) if self.burst is None else float(self.burst)


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """The tenant's own limits."""

    max_concurrency: Annotated[MaxConcurrency | None, Meta(description="null: no limit over all queues.")] = None
    rate: Annotated[
        Rate | None, Meta(description="How many tasks of all queues start in a while; null: any number.")
    ] = None


class Grant(Struct, frozen=True, forbid_unknown_fields=True):
    """The operator's limits for a tenant."""

    max_concurrency: Annotated[
        MaxConcurrency | None, Meta(description="null: only the tenant's own limit applies.")
    ] = None


class LimitDefinition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named limit."""

    max_concurrency: MaxConcurrency | None = None
    rate: Rate | None = None
    keyed: Annotated[
        bool, Meta(description="It holds for each key by itself. Cannot change while the limit is in use.")
    ] = False
    description: Description | None = None

    def check(self) -> list[FieldError]:
        more = (
            []
            if self.description is None
            else check_text(self.description, "/description", MAX_DESCRIPTION, empty=True)
        )
        return with_more(faults(self), more)


class KeyOverride(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds for one key of a keyed limit, in place of the limit's own values."""

    max_concurrency: Annotated[MaxConcurrency | None, Meta(description="null: the limit's.")] = None
    rate: Annotated[Rate | None, Meta(description="null: the limit's.")] = None


class QueueKeyOverride(KeyOverride, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds for one key of a queue, in place of the queue's `key`."""

    weight: Annotated[
        int, Meta(ge=1, le=MAX_WEIGHT, description="Its share beside the queue's other keys, which weigh 1.")
    ] = 1


class QueueKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds for each distinct key of a queue's tasks."""

    max_concurrency: MaxConcurrency | None = None
    rate: Rate | None = None
    max_depth: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_DEPTH_OF_KEY)] | None,
        Meta(description="Exact limit on scheduled and ready tasks of one key."),
    ] = None
    ordered: Annotated[
        bool,
        Meta(description="The tasks of a key start one at a time, strictly in the order in which they were enqueued."),
    ] = False
    required: Annotated[bool, Meta(description="A task without a key is refused.")] = False

    @property
    def limited(self) -> bool:
        return self.ordered or self.max_concurrency is not None or self.rate is not None

    def check(self, where: str) -> list[FieldError]:
        if self.ordered and self.max_concurrency not in (None, 1):
            return [FieldError(where + "/max_concurrency", "an ordered key runs one task at a time; leave it out")]
        return []


@dataclass(frozen=True, slots=True)
class LimitView:
    """A named limit: its definition, and whether it is paused."""

    name: str
    definition: LimitDefinition
    created_at: datetime
    updated_at: datetime
    paused_at: datetime | None = None
    owner: str | None = None
    """The owner that the definitions document managing it names."""
    overridden: bool = False
    """Some key has values of its own."""


@dataclass(frozen=True, slots=True)
class KeyView:
    """One key of a limit, with the values that apply to it."""

    key: str
    max_concurrency: int | None
    rate: Rate | None
    overridden: bool
    paused_at: datetime | None
    weight: int
    """Among the keys of a queue."""


@dataclass(frozen=True, slots=True)
class LimitRule:
    """What tasks that take a named limit must observe."""

    keyed: bool
    capacity: float | None
    """The most that one of them may cost; None without a rate."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A running task that takes a limit."""

    task_id: str
    queue: str
    key: str | None
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Use:
    """What is taken of a limit, or of one key of it, at one instant."""

    holding: int
    """Running tasks."""
    waiting_keys: int
    """Flows of tasks, one for each key, that wait for it."""
    holders: tuple[Holder, ...]
    """The first MAX_HOLDERS of them, the longest running first."""
    effective_max_concurrency: int | None
    tokens: float | None = None
    """Units of the rate that could start at once; None without a rate, or over all keys."""
    next_at: datetime | None = None
    """When the next unit can start; None: now."""


class LimitUse(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A limit that a task takes. It counts one for the concurrency and `cost` for the rate."""

    name: Name
    key: Annotated[
        KeyText | None,
        Meta(
            description='Of a keyed limit: a key of its own. null and, in a queue or handler, "task": the key of the task.'
        ),
    ] = None
    cost: Annotated[int, Meta(ge=1, le=MAX_COST, description="Units of the rate.")] = 1


class LimitUseShown(LimitUse, frozen=True, omit_defaults=False):
    """A limit that a task takes, with every field."""


@dataclass(frozen=True, slots=True)
class QueueRules:
    """What the tasks of a queue must observe."""

    key_required: bool = False
    key_limited: bool = False
    """Each key has a limit of its own."""
    uses: tuple[LimitUse, ...] = ()
    """What the queue makes its tasks take."""
    handler_uses: tuple[LimitUse, ...] = ()
    """What its handler makes them take."""

    def count(self) -> int:
        """Return how many named or keyed limits a task with a key takes that names none itself."""
        return len({use.name for use in (*self.uses, *self.handler_uses)}) + self.key_limited


Uses = Annotated[list[LimitUse], Meta(max_length=MAX_USES)]
"""What a task takes."""
NamedUses = Annotated[
    list[LimitUse | Name],
    Meta(max_length=MAX_USES, description='What all tasks take: `"name"`, or an object where a key or cost is given.'),
]
"""What a queue or handler makes its tasks take."""


def uses_of(given: Iterable["LimitUse | str"]) -> tuple[LimitUse, ...]:
    """Return the limits of a list in their one form."""
    uses = (LimitUse(one) if isinstance(one, str) else one for one in given)
    return tuple(structs.replace(use, key=None) if use.key == TASKS_KEY else use for use in uses)


def shown_uses(uses: Iterable[LimitUse]) -> tuple[LimitUseShown, ...]:
    return tuple(LimitUseShown(use.name, use.key, use.cost) for use in uses)


def check_uses(uses: Sequence[LimitUse], where: str) -> list[FieldError]:
    """Return what no type can say of the limits in a list."""
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, use in enumerate(uses):
        if use.name in seen:
            errors.append(FieldError(where + pointer(index), f"names limit {use.name} a second time; keep one"))
        seen.add(use.name)
        if use.key is not None and (problem := key_problem(use.key)):
            errors.append(FieldError(where + pointer(index, "key"), problem))
    return errors


def key_problem(text: str) -> str | None:
    """Return what is wrong with a key."""
    problem = text_problem(text, MAX_KEY_BYTES)
    if problem is None and len(text.encode()) > MAX_KEY_BYTES:
        return f"is longer than {MAX_KEY_BYTES} bytes of UTF-8"
    return problem


def rule_of(definition: LimitDefinition) -> LimitRule:
    return LimitRule(definition.keyed, None if definition.rate is None else definition.rate.capacity)


def limit_to_dict(definition: LimitDefinition | Limits) -> dict[str, Any]:
    """Return the complete definition as JSON values."""
    return structs.asdict(definition) | {"rate": None if definition.rate is None else structs.asdict(definition.rate)}


def limit_etag(definition: LimitDefinition | Limits) -> str:
    return etag_of(limit_to_dict(definition))


def task_errors(
    key: str | None,
    own: Sequence[LimitUse],
    rules: QueueRules,
    known: Mapping[str, LimitRule],
    where: str,
) -> list[FieldError]:
    """Return what is wrong with the key and the limits of a task. `known` are the limits that it and the rules name."""
    errors: list[FieldError] = []
    if key is None and rules.key_required:
        errors.append(FieldError(where + "/key", "is required: the queue runs by key"))
    for index, use in enumerate(own):
        errors += use_errors(use, known.get(use.name), key, where + pointer("limits", index))
    shared = {use.name: use for use in (*rules.handler_uses, *rules.uses)}
    for use in own:
        shared.pop(use.name, None)
    for use in shared.values():
        if key is None and use.key is None and use.name in known and known[use.name].keyed:
            errors.append(FieldError(where + "/key", f"is required: all tasks here take the keyed limit {use.name}"))
    count = len(own) + len(shared) + (key is not None and rules.key_limited)
    if count > MAX_USES:
        errors.append(
            FieldError(
                where + "/limits", f"the task would take {count} named or keyed limits, at most {MAX_USES} are allowed"
            )
        )
    return errors


def use_errors(use: LimitUse, rule: LimitRule | None, key: str | None, where: str) -> list[FieldError]:
    """Return what is wrong with one limit that a task, queue or handler names; `key` is the task's, if it is known to have one."""
    if rule is None:
        return [FieldError(where + "/name", f"there is no limit {use.name}; PUT /limits/{use.name} creates it")]
    errors: list[FieldError] = []
    if use.key is not None and not rule.keyed:
        errors.append(FieldError(where + "/key", f"limit {use.name} is not keyed; leave the key out"))
    if use.key is None and key is None and rule.keyed:
        errors.append(FieldError(where + "/key", f"is required: limit {use.name} is keyed, and the task has no key"))
    if rule.capacity is not None and use.cost > rule.capacity:
        most = int(rule.capacity)
        errors.append(
            FieldError(where + "/cost", f"is above the burst of limit {use.name}, {most}, so it could never start")
        )
    return errors
