"""Hints from whatever changes tasks to the loops that act on them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from app.store.tasks import AttemptEnd, Claim, LaneWant


def _ignore(*_: object) -> None:
    """Do nothing: an API replica has no engine to notify, nor has a service on its own in a test."""


class ConcurrencySlot(NamedTuple):
    """The limits that a lease counts against."""

    tenant_id: int
    handler_id: int
    """0 for a pulled task."""
    queue_id: int


class Rider(Protocol):
    """A claim that goes with the writing of a group of outcomes, because it waits for the slots that these free."""

    @property
    def wants(self) -> Sequence[LaneWant]: ...

    @property
    def lease_seconds(self) -> float: ...

    def answered(self, claims: Sequence[Claim] | None) -> None:
        """Called once, before the verdicts on the outcomes are told: one Claim per lane, or None if the statement failed."""


def _no_rider(_: object) -> None:
    """Claim nothing along: nobody delivers here."""


@dataclass(slots=True)
class Signals:
    """Hints to the engine, which connects them. A lost one costs at most a poll interval."""

    lane_ready: Callable[[int, int], None] = _ignore
    """(queue id, lane's handler id): tasks became ready, or a slot came free."""
    slot_freed: Callable[[ConcurrencySlot], None] = _ignore
    """A slot of a limit may have come free."""
    rider: Callable[[Sequence[AttemptEnd]], Rider | None] = _no_rider
    """Begins the claim that goes with the writing of these outcomes, if there is one."""
    any_lane_ready: Callable[[], None] = _ignore
    """A change (resume, enable, a higher limit) may have opened any lane."""
    task_due_at: Callable[[float], None] = _ignore
    """(Unix seconds by the database's clock): a task becomes due or expires then."""
    batch_changed: Callable[[], None] = _ignore
    """A batch's task has ended or was added, so there is something to fold."""
    lease_ends: Callable[[float], None] = _ignore
    """(Unix seconds by the database's clock): a lease expires then, before the reaper's next regular run."""
    schedule_due_at: Callable[[float], None] = _ignore
    """(Unix seconds by the database's clock): a schedule is due then."""
    calls_counted: Callable[[], None] = _ignore
    """Calls of a handler with a breaker or an adaptive limit were counted, and may change its health."""
    batch_completed: Callable[[], None] = _ignore
    """A batch has completed; if it is a schedule's run, its end must be recorded."""
    batch_cancelled: Callable[[], None] = _ignore
    """A batch was marked as cancelled; its unfinished tasks must be swept."""
    action_started: Callable[[], None] = _ignore
    """There is an action to work on."""
    source_changed: Callable[[], None] = _ignore
    """A source was created, changed, paused, resumed or deleted."""
    revoked: Callable[[str, str], None] = _ignore
    """(task id, id of the replica that holds it): the lease was revoked, so the call must end."""
