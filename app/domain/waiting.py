"""What an unfinished task waits for: facts, and the table of rules that reads blockers out of them.

`show_live_tasks` collects the facts. Every answer about a waiting task comes from RULES: `waiting_for` of a task is the first
blocker, `why` shows all of them (app/domain/why.py).
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from enum import StrEnum
from functools import cache

from msgspec import Struct


class WaitingFor(StrEnum):
    RUN_AT = "run_at"
    RETRY_BACKOFF = "retry_backoff"
    QUEUE_PAUSED = "queue_paused"
    HANDLER_DISABLED = "handler_disabled"
    HANDLER_PARKED = "handler_parked"
    BREAKER_OPEN = "breaker_open"
    NO_ENGINE = "no_engine"
    NO_WORKER = "no_worker"
    GLOBAL_LIMIT = "global_limit"
    HANDLER_LIMIT = "handler_limit"
    QUEUE_LIMIT = "queue_limit"
    GLOBAL_RATE = "global_rate"
    HANDLER_RATE = "handler_rate"
    QUEUE_RATE = "queue_rate"
    KEY_PAUSED = "key_paused"
    KEY_LIMIT = "key_limit"
    KEY_RATE = "key_rate"
    LIMIT = "limit"
    LIMIT_RATE = "limit_rate"
    ORDERING = "ordering"
    FAIR_SHARE = "fair_share"
    REPLICAS_BUSY = "replicas_busy"
    WORKER = "worker"
    BEHIND = "behind"


NO_WORKER_SECONDS = 60.0
"""A pull queue has no worker if none has asked for this long and none holds a lease."""


class Level(Struct, frozen=True):
    """How many tasks may run at once at a level, and how many do."""

    max: int
    used: int


class Parked(Struct, frozen=True):
    """The limit, under a key or not, at which the last claim found no room for tasks like this one."""

    code: WaitingFor
    limit: str | None = None
    """A named limit."""
    key: str | None = None
    until: datetime | None = None
    """When it is looked at again at the latest; None: when room comes."""
    bucket: int = 0
    limit_id: int = 0
    paused: bool = False


class WaitingFacts(Struct, frozen=True):
    """What decides whether a claim takes a task that is not running. One document of `show_live_tasks`, at one instant."""

    queue: str = ""
    tenant: str = ""
    queue_id: int = 0
    lane: int = 0
    """The task's own handler; 0 for the queue's."""
    flow_id: int | None = None
    handler_id: int | None = None
    handler: str | None = None
    """None: the queue is for pull workers."""
    run_at: datetime | None = None
    """If it is still to come."""
    failed_at: datetime | None = None
    """When the attempt failed after which it waits to be retried."""
    promoted: bool = True
    """It is stored as ready. An engine has to do that when run_at has come."""
    paused: bool = False
    paused_at: datetime | None = None
    disabled: bool = False
    disabled_at: datetime | None = None
    disabled_reason: str | None = None
    parked_until: datetime | None = None
    """The handler is not called before then."""
    breaker_open: bool = False
    engine: bool = True
    """Some replica promotes, claims and delivers."""
    worker: bool = True
    """Of a pull queue: a worker has asked for its tasks lately, or holds one."""
    tenant_limit: Level | None = None
    handler_limit: Level | None = None
    queue_limit: Level | None = None
    parked: Parked | None = None
    fair_share: bool = False
    """Other keys come first."""
    busy: bool = False
    """No engine has a place for its tenant or its queue."""
    behind: bool = False
    """Another ready task of its lane, or of its key, comes first."""

    @property
    def pulled(self) -> bool:
        return self.handler is None

    @property
    def due(self) -> bool:
        """Whether its time has come. Until then it takes no part in what changes from moment to moment."""
        return self.run_at is None


Rule = tuple[WaitingFor, Callable[[WaitingFacts], bool]]


def _full(level: Level | None) -> bool:
    return level is not None and level.used >= level.max


def _parked_on(code: WaitingFor) -> Rule:
    return code, lambda facts: facts.due and facts.parked is not None and facts.parked.code == code


RULES: tuple[Rule, ...] = (
    (WaitingFor.RUN_AT, lambda facts: not facts.due and facts.failed_at is None),
    (WaitingFor.RETRY_BACKOFF, lambda facts: not facts.due and facts.failed_at is not None),
    (WaitingFor.QUEUE_PAUSED, lambda facts: facts.paused),
    (WaitingFor.HANDLER_DISABLED, lambda facts: facts.disabled),
    (
        WaitingFor.HANDLER_PARKED,
        lambda facts: facts.parked_until is not None and (facts.run_at is None or facts.parked_until > facts.run_at),
    ),
    (WaitingFor.BREAKER_OPEN, lambda facts: facts.breaker_open),
    (WaitingFor.NO_ENGINE, lambda facts: not facts.engine and not (facts.pulled and facts.promoted)),
    (WaitingFor.NO_WORKER, lambda facts: facts.pulled and not facts.worker),
    (WaitingFor.GLOBAL_LIMIT, lambda facts: facts.due and _full(facts.tenant_limit)),
    # an open breaker is a limit of the handler too, and already said
    (WaitingFor.HANDLER_LIMIT, lambda facts: facts.due and not facts.breaker_open and _full(facts.handler_limit)),
    (WaitingFor.QUEUE_LIMIT, lambda facts: facts.due and _full(facts.queue_limit)),
    _parked_on(WaitingFor.GLOBAL_RATE),
    _parked_on(WaitingFor.HANDLER_RATE),
    _parked_on(WaitingFor.QUEUE_RATE),
    _parked_on(WaitingFor.KEY_PAUSED),
    _parked_on(WaitingFor.KEY_LIMIT),
    _parked_on(WaitingFor.KEY_RATE),
    _parked_on(WaitingFor.LIMIT),
    _parked_on(WaitingFor.LIMIT_RATE),
    _parked_on(WaitingFor.ORDERING),
    (WaitingFor.FAIR_SHARE, lambda facts: facts.due and facts.fair_share),
    (WaitingFor.REPLICAS_BUSY, lambda facts: facts.due and not facts.pulled and facts.busy),
    (WaitingFor.WORKER, lambda facts: facts.due and facts.pulled and facts.worker),
    (WaitingFor.BEHIND, lambda facts: facts.due and facts.behind),
)
"""In the order in which a claim meets them: what the task, its queue and its handler say, whether anybody is there to claim it,
what limits leave room for, and who comes first."""


def blockers(facts: WaitingFacts) -> Iterator[WaitingFor]:
    """Yield everything that keeps a task from starting, in the order in which a claim meets it."""
    return (code for code, holds in RULES if holds(facts))


def first_blocker(facts: WaitingFacts) -> WaitingFor | None:
    return next(blockers(facts), None)


@cache
def first_of_new(
    *, later: bool, queue_paused: bool, handler: bool, handler_disabled: bool, engine: bool
) -> WaitingFor | None:
    """Return what a task waits for at the moment it is enqueued, as far as its receipt tells. There are 32 answers."""
    return first_blocker(
        WaitingFacts(
            run_at=datetime.max if later else None,
            promoted=not later,
            paused=queue_paused,
            handler="" if handler else None,
            disabled=handler_disabled,
            engine=engine,
        )
    )
