"""Firing: what is due is read, decided and written, in groups, by whichever replica comes first.

Every change of a schedule goes the same way: read its state, decide (app.domain.schedules.firing, pure), write by
compare-and-set on what was read (apply_schedules_v1). Who loses the race has written nothing, and what is still due is read again.
"""

import asyncio
import base64
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

from app.domain.instants import format_instant
from app.domain.schedules.definitions import ScheduleDefinition
from app.domain.schedules.firing import PAUSED_LOOK, Overlap, Runs, Start, Without, fires_at, judge, may_start, plan
from app.runtime.core import Core
from app.runtime.pieces import in_pieces
from app.store import ledger, schedules
from app.store.db import Unavailable
from app.store.ledger import Finished, WaitingStart
from app.store.schedules import ScheduleState
from app.telemetry import events
from app.telemetry.logs import get_logger

MANY_SECONDS = 200
"""A plan over a longer time than this is made in a thread."""
WRITE_SECONDS = 0.2
"""What is decided waits no longer than this for the rest of its group."""

log = get_logger(__name__)


@dataclass(slots=True)
class Change:
    """What is to be written for one schedule."""

    state: ScheduleState
    next_nominal_at: datetime | None
    look_at: datetime | None
    failures: int
    pause: str | None = None
    lines: list[Start | Without] = field(default_factory=list)
    starts: list[str] = field(default_factory=list)
    """Waiting rows that start now."""
    ends: list[Finished] = field(default_factory=list)
    drop: bool = False
    cancel: bool = False
    counted: bool = True
    """Whether its starts count against max_runs."""
    overlap: str | None = None
    payload: bytes | None = None

    @classmethod
    def of(cls, state: ScheduleState, look_at: datetime | None) -> "Change":
        return cls(state, state.next_nominal_at, look_at, state.failures)

    @property
    def begun(self) -> int:
        """How many runs start now."""
        return len(self.starts) + sum(isinstance(line, Start) and not line.waiting for line in self.lines)

    @property
    def missed(self) -> int:
        return sum(line.count for line in self.lines if isinstance(line, Without) and line.outcome == "missed")

    def told(self, core: Core) -> dict[str, Any]:
        """As apply_schedules_v1 takes it."""
        state, lines = self.state, list(self.lines)
        told: dict[str, Any] = {
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
        if isinstance(first, Without) and not first.extra and _goes_on(state, first.outcome):
            told["extend"] = {"id": state.newest_id, "until": _instant(first.last), "n": first.count}
            del lines[0]
        told["rows"] = [self._row(core, line) for line in lines]
        return told

    def _row(self, core: Core, line: Start | Without) -> dict[str, Any]:
        row: dict[str, Any] = {"id": _id(core), "extra": line.due.extra if isinstance(line, Start) else line.extra}
        if isinstance(line, Without):
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


def _goes_on(state: ScheduleState, outcome: str) -> bool:
    """Whether the newest row of the ledger is of times without a run that ended alike."""
    return state.newest_id is not None and state.newest_outcome == outcome


def _instant(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _id(core: Core) -> str:
    return core.ids.uuid7(int(core.clock.seconds() * 1000))


def look_at(
    definition: ScheduleDefinition, state: ScheduleState, nominal: datetime | None, now: datetime
) -> datetime | None:
    """When a replica has something to do for a schedule whose next nominal time this is."""
    if nominal is None or state.deleted:
        return None
    return max(nominal, now + PAUSED_LOOK) if state.paused else fires_at(definition, key_of(state), nominal)


def key_of(state: ScheduleState) -> str:
    return f"{state.tenant}/{state.name}"


class Fired(NamedTuple):
    found: int
    """Schedules that were due."""
    written: int
    """Those of them for which this replica was the first."""
    next_seconds: float | None
    """Until the next is due; None: none will be."""


async def fire(core: Core, limit: int) -> Fired:
    """Do what is due for up to about `limit` schedules."""
    ids = core.schedules.awake(await schedules.due(core.db, limit))
    written = 0
    if ids:
        written = await _fire(core, ids)
    return Fired(len(ids), written, await schedules.next_look_seconds(core.db))


async def _fire(core: Core, ids: Sequence[int]) -> int:
    """In this order; how many were written. What is decided is written before the next takes long: one with many times is in
    nobody's way."""
    states = {state.id: state for state in await schedules.states(core.db, ids)}
    await core.schedules.load(core.db, list(states.values()))
    changes: list[Change] = []
    until, written = time.monotonic() + WRITE_SECONDS, 0
    async for state in in_pieces(states[schedule_id] for schedule_id in ids if schedule_id in states):
        if (change := await _look(core, state)) is not None:
            changes.append(change)
        if time.monotonic() > until:
            written += await write(core, changes)
            changes, until = [], time.monotonic() + WRITE_SECONDS
    return written + await write(core, changes)


async def _look(core: Core, state: ScheduleState) -> Change | None:
    definition = core.schedules.of(state)
    if definition is None:
        return None
    if state.next_nominal_at is None or state.deleted:
        return Change.of(state, None)
    try:
        if (state.now - state.next_nominal_at).total_seconds() > MANY_SECONDS:
            return await asyncio.to_thread(_planned, core, definition, state, state.next_nominal_at)
        return _planned(core, definition, state, state.next_nominal_at)
    except Exception:
        core.schedules.rest(state.id)
        return None


def _planned(core: Core, definition: ScheduleDefinition, state: ScheduleState, first: datetime) -> Change:
    grace = core.schedule_grace_seconds
    found = plan(definition, key_of(state), first, state.now, grace_seconds=grace, paused=state.paused)
    left = None if definition.max_runs is None else definition.max_runs - state.runs_made
    judged = judge(found.lines, state.runs, definition.overlap, left)
    following = None if judged.exhausted else found.next_nominal_at
    looking = state.now if found.more and following else look_at(definition, state, following, state.now)
    return Change(state, following, looking, state.failures, lines=judged.lines, cancel=judged.cancel)


async def write(core: Core, changes: Sequence[Change]) -> int:
    """Write a group of changes, and tell what it came to; how many were written."""
    written = await _apply(core, changes) if changes else set()
    done = [change for change in changes if change.state.id in written]
    for change in done:
        announce(core, change)
    return len(done)


async def _apply(core: Core, changes: Sequence[Change]) -> set[int]:
    """The schedules for which it was written. A group that fails is written in parts, so that no schedule fails for another."""
    try:
        told = [change.told(core) for change in changes]
        written = await schedules.apply(core.db, told, core.replica.name, wait=False)
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


def announce(core: Core, change: Change) -> None:
    """Wake what is to deal with a change that is written, and say what nobody must overlook."""
    state = change.state
    if change.begun:
        core.stats.enqueued(state.queue_id, change.begun)
        core.signals.lane_ready(state.queue_id, state.handler_id)
    if change.cancel:
        core.signals.batch_cancelled()
    if change.look_at is not None:
        core.signals.look_at(change.look_at.timestamp())
    missed = [line for line in change.lines if isinstance(line, Without) and line.outcome == "missed"]
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


async def finish(core: Core, limit: int) -> int:
    """Write the end of up to `limit` runs, and start what waited for it; how many were found."""
    found = await ledger.finished(core.db, limit)
    if not found:
        return 0
    states = await schedules.states(core.db, core.schedules.awake(sorted({end.schedule_id for end in found})))
    await core.schedules.load(core.db, states)
    # read after the states: if another replica has written any of it since, the state is no longer current
    ends = await _still_open(core, found)
    waiting = await ledger.first_waiting(core.db, list(ends))
    changes = []
    for state in states:
        definition = core.schedules.of(state)
        if definition is not None and state.id in ends:
            changes.append(_ended(definition, state, ends[state.id], waiting.get(state.id)))
    await write(core, changes)
    return len(found)


async def _still_open(core: Core, found: Sequence[Finished]) -> dict[int, list[Finished]]:
    """By schedule, those that nobody has written the end of."""
    running = await ledger.running(core.db, [end.run_id for end in found])
    ends: defaultdict[int, list[Finished]] = defaultdict(list)
    for end in found:
        if end.run_id in running:
            ends[end.schedule_id].append(end)
    return ends


def _ended(
    definition: ScheduleDefinition, state: ScheduleState, ends: list[Finished], waiting: WaitingStart | None
) -> Change:
    change = Change.of(state, None)
    change.ends = ends
    most = 0
    for end in ends:
        change.failures = {"ran_failed": change.failures + 1, "ran_ok": 0}.get(end.outcome, change.failures)
        most = max(most, change.failures)
    limit = definition.pause_after_failures
    if limit is not None and most >= limit and not state.paused and not state.deleted:
        change.pause = "a run failed" if most == 1 else f"{most} runs in a row failed"
        change.failures = 0
    paused = state.paused or change.pause is not None
    change.look_at = look_at(definition, replace(state, paused=paused), state.next_nominal_at, state.now)
    if not paused and not state.deleted:
        left = Runs(
            state.runs.running - len(ends), state.runs.catching_up - sum(end.cause == "catch_up" for end in ends)
        )
        change.starts = released(definition, waiting, left)
    return change


def released(definition: ScheduleDefinition, waiting: WaitingStart | None, runs: Runs) -> list[str]:
    """The oldest waiting start, if nothing is in its way any more: one at a time, for it is in the way of the next."""
    if waiting is None:
        return []
    overlap: Overlap = waiting.overlap or definition.overlap  # type: ignore[assignment]  # stored as it was judged
    return [waiting.run_id] if may_start(overlap, runs) else []
