"""Limits: how many tasks run at once, and how many start in a while.

A named limit may be keyed: then it holds for each key by itself. Queues, handlers and tasks name the limits that their tasks take.
The tenant's own limits and the operator's grant hold over all queues.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated

from msgspec import Meta, Struct, structs

from app.domain.bodies import faults, with_more
from app.domain.errors import FieldError, pointer
from app.domain.names import Name
from app.domain.texts import MAX_DESCRIPTION, Description, check_text, text_problem

MAX_CONCURRENCY = 100_000
MAX_RATE = 1_000_000_000
MAX_PERIOD_SECONDS = 31 * 86_400
MAX_COST = 1_000_000
MAX_WEIGHT = 1_000
MAX_USES = 4
"""How many named or keyed limits a task may take, beside those of its queue, its handler and its tenant."""
MAX_KEY_BYTES = 128
MAX_DEPTH_OF_KEY = 1_000_000_000
BURST_SECONDS = 0.1
"""A rate without a burst admits at once what comes in this time."""
TASKS_KEY = "task"
"""As the key of a limit that a queue or handler names: each task's own."""

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
    period_seconds: Annotated[float, Meta(gt=0, le=MAX_PERIOD_SECONDS)] = 1.0
    burst: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_RATE)] | None,
        Meta(description="Units admitted at once after a pause; null: what 0.1 s brings, at least 1."),
    ] = None

    @property
    def capacity(self) -> float:
        """The burst in effect, in units."""
        return max(1.0, self.limit / self.period_seconds * BURST_SECONDS) if self.burst is None else float(self.burst)


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """The tenant's own limits."""

    max_concurrency: Annotated[MaxConcurrency | None, Meta(description="null: no limit over all queues.")] = None


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

    def check(self, where: str) -> list[FieldError]:
        if self.ordered and self.max_concurrency not in (None, 1):
            return [FieldError(where + "/max_concurrency", "an ordered key runs one task at a time; leave it out")]
        return []


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


Uses = Annotated[list[LimitUse], Meta(max_length=MAX_USES)]
"""What a task takes."""
NamedUses = Annotated[
    list[LimitUse | Name],
    Meta(max_length=MAX_USES, description='What all tasks take: `"name"`, or an object where a key or cost is given.'),
]
"""What a queue or handler makes its tasks take."""


def uses_of(given: Iterable["LimitUse | str"]) -> tuple[LimitUse, ...]:
    """Return what a queue or handler makes its tasks take in its one form."""
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
