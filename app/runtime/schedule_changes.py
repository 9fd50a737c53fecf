"""Changes of a schedule: writing them, and their consequences.

Every change works the same way: read the schedule's state, decide (app.domain.schedules.firing, pure), and write by
compare-and-set on what was read (apply_schedules_v1). The loser of a race writes nothing, and reads what is still due again.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.domain.instants import format_instant
from app.domain.schedules.definitions import Overlap, ScheduleDefinition
from app.domain.schedules.firing import PAUSED_LOOK, Runs, Start, TimesWithoutRun, fires_at, may_start
from app.runtime.core import Core
from app.store import schedules
from app.store.db import Reader
from app.store.failures import Unavailable
from app.store.ledger import Finished, WaitingStart
from app.store.schedules import ScheduleState
from app.telemetry import events
from app.telemetry.logs import get_logger

log = get_logger(__name__)


@dataclass(slots=True)
class ScheduleChange:
    """What to write for one schedule."""

    state: ScheduleState
    next_nominal_at: datetime | None
    look_at: datetime | None
    failures: int
    pause: str | None = None
    lines: list[Start | TimesWithoutRun] = field(default_factory=list)
    starts: list[str] = field(default_factory=list)
    """Ids of waiting rows that start now."""
    ends: list[Finished] = field(default_factory=list)
    drop: bool = False
    cancel: bool = False
    counted: bool = True
    """Whether the starts count against max_runs."""
    overlap: str | None = None
    payload: bytes | None = None

    @classmethod
    def of(cls, state: ScheduleState, look_at: datetime | None) -> "ScheduleChange":
        return cls(state, state.next_nominal_at, look_at, state.failures)

    @property
    def begun(self) -> int:
        """Return how many runs start now."""
        return len(self.starts) + sum(isinstance(line, Start) and not line.waiting for line in self.lines)

    @property
    def missed(self) -> int:
        return sum(line.count for line in self.lines if isinstance(line, TimesWithoutRun) and line.outcome == "missed")

    def to_apply(self, core: Core) -> dict[str, Any]:
        """Return the change as apply_schedules_v1 takes it."""
        state, lines = self.state, list(self.lines)
        document: dict[str, Any] = {
            "id": state.id,
            "version": state.version,
            "seq": state.seq,
            "next": _instant(self.next_nominal_at),
            "look": _instant(self.look_at),
            "runs": sum(isinstance(line, Start) for line in lines) if self.counted else 0,
            "missed": self.missed,
            "failures": self.failures,
            "pause": self.pause,
            "drop": self.drop,
            "cancel": self.cancel,
            "starts": [{"id": run_id, "task": _id(core)} for run_id in self.starts],
            "ends": [{"id": end.run_id, "task": end.task_id, "outcome": end.outcome} for end in self.ends],
        }
        first = lines[0] if lines else None
        if isinstance(first, TimesWithoutRun) and not first.extra and _extends_newest(state, first.outcome):
            document["extend"] = {"id": state.newest_id, "until": _instant(first.last), "n": first.count}
            del lines[0]
        document["rows"] = [self._row(core, line) for line in lines]
        return document

    def _row(self, core: Core, line: Start | TimesWithoutRun) -> dict[str, Any]:
        row: dict[str, Any] = {"id": _id(core), "extra": line.due.extra if isinstance(line, Start) else line.extra}
        if isinstance(line, TimesWithoutRun):
            row |= {"at": _instant(line.first), "until": _instant(line.last), "n": line.count}
            return row | {"cause": line.cause, "outcome": line.outcome, "jitter": 0}
        due = line.due
        row |= {"at": _instant(due.nominal_at), "until": _instant(due.nominal_at), "n": 1, "cause": due.cause}
        row |= {
            "outcome": "waiting" if line.waiting else "running",
            "jitter": due.jitter_seconds,
            "overlap": self.overlap,
        }
        if not line.waiting:
            row["task"] = _id(core)
        if self.payload is not None:
            row["payload"] = base64.b64encode(self.payload).decode()
        return row


def _extends_newest(state: ScheduleState, outcome: str) -> bool:
    """Return whether the ledger's newest row holds times without a run and with the same outcome, so that it can be extended."""
    return state.newest_id is not None and state.newest_outcome == outcome


def _instant(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _id(core: Core) -> str:
    return core.ids.uuid7(int(core.clock.seconds() * 1000))


def next_look(
    definition: ScheduleDefinition, state: ScheduleState, nominal: datetime | None, now: datetime
) -> datetime | None:
    """Return when a replica must next act on a schedule with this next nominal time."""
    if nominal is None or state.deleted:
        return None
    return max(nominal, now + PAUSED_LOOK) if state.paused else fires_at(definition, key_of(state), nominal)


def key_of(state: ScheduleState) -> str:
    return f"{state.tenant}/{state.name}"


def waiting_starts_due(definition: ScheduleDefinition, waiting: WaitingStart | None, runs: Runs) -> list[str]:
    """Return the oldest waiting start if nothing blocks it any longer: one at a time, because it blocks the next."""
    if waiting is None:
        return []
    overlap: Overlap = waiting.overlap or definition.overlap  # type: ignore[assignment]  # validated before it was stored
    return [waiting.run_id] if may_start(overlap, runs) else []


async def write(core: Core, changes: Sequence[ScheduleChange]) -> int:
    """Write a group of changes and publish the results; return how many were written."""
    written = await _apply(core, changes) if changes else set()
    done = [change for change in changes if change.state.id in written]
    for change in done:
        after_commit(core, change)
    return len(done)


async def _apply(core: Core, changes: Sequence[ScheduleChange]) -> set[int]:
    """Return the schedules that were written. A failing group is written in parts, so that no schedule fails because of another."""
    try:
        documents = [change.to_apply(core) for change in changes]
        written = await schedules.apply(core.db, documents, core.replica.name, wait=False)
    except Unavailable:
        raise
    except Exception as error:
        if len(changes) == 1:
            core.schedules.rest(changes[0].state.id)
            return set()
        events.emit(log, events.STATEMENT_FAILED, statement="fire", size=len(changes), error=repr(error))
        half = len(changes) // 2
        return await _apply(core, changes[:half]) | await _apply(core, changes[half:])
    core.metrics.group_written("fire", len(written))
    return written


async def write_held(connection: Reader, core: Core, change: ScheduleChange) -> None:
    """Write a change under the lock of the schedule's row, so that what it was decided by still holds."""
    written = await schedules.apply(connection, [change.to_apply(core)], core.replica.name, wait=True)
    assert written, "its row is locked"


def after_commit(core: Core, change: ScheduleChange) -> None:
    """Wake whoever must act on a written change, and log what operators must not miss."""
    state = change.state
    if change.begun:
        core.stats.enqueued(state.queue_id, change.begun)
        core.signals.lane_ready(state.queue_id, state.handler_id)
    if change.cancel:
        core.signals.batch_cancelled()
    if change.look_at is not None:
        core.signals.schedule_due_at(change.look_at.timestamp())
    missed = [line for line in change.lines if isinstance(line, TimesWithoutRun) and line.outcome == "missed"]
    for line in missed:
        events.emit(
            log,
            events.SCHEDULE_MISSED,
            tenant=state.tenant,
            schedule=state.name,
            times=line.count,
            first=format_instant(line.first),
            last=format_instant(line.last),
        )
    if change.pause is not None:
        events.emit(log, events.SCHEDULE_PAUSED, tenant=state.tenant, schedule=state.name, reason=change.pause)
