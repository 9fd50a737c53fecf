"""Hints from whatever changes tasks to the loops that deal with them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


def _ignore(*_: object) -> None:
    """Nobody listens: an API replica without an engine, or a service used by itself in a test."""


class Slot(NamedTuple):
    """Whose limits a lease counts against."""

    tenant_id: int
    handler_id: int
    """0 for a task that a worker pulled."""
    queue_id: int


@dataclass(slots=True)
class Signals:
    """Hints that travel up to the engine, which connects them. Losing one costs at most a poll interval."""

    lane_ready: Callable[[int, int], None] = _ignore
    """(queue id, lane's handler id): tasks became ready, or a slot came free."""
    freed: Callable[[Slot], None] = _ignore
    """A slot of a limit may have come free."""
    stir: Callable[[], None] = _ignore
    """A change (resume, enable, a higher limit) may have opened any lane."""
    due_at: Callable[[float], None] = _ignore
    """Unix seconds by the database's clock at which a task becomes due or expires."""
    batch_moved: Callable[[], None] = _ignore
    """A task of a batch has ended, or was added: there is something to fold."""
    lease_ends: Callable[[float], None] = _ignore
    """Unix seconds by the database's clock at which a lease runs out before the reaper would look again."""
    look_at: Callable[[float], None] = _ignore
    """Unix seconds by the database's clock at which a schedule is due."""
    batch_completed: Callable[[], None] = _ignore
    """A batch has completed: if it is the run of a schedule, its end is to be written."""
    batch_cancelled: Callable[[], None] = _ignore
    """A batch was marked as cancelled: its unfinished tasks are to be swept."""
    revoked: Callable[[str, str], None] = _ignore
    """(task id, id of the replica that holds it): the lease is gone, the call must end."""
