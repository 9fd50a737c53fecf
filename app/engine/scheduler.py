"""Firing: due schedules are read, decided and written, in groups, by whichever replica comes first.

Every replica does it; compare-and-set decides who was first (runtime/schedule_changes.py). The scheduler sleeps until the next
schedule is due; hints wake it sooner, and so does the engine's poll. Its cost does not grow with the number of schedules.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from app.domain.schedules.definitions import ScheduleDefinition
from app.domain.schedules.firing import apply_overlap, due_times
from app.runtime.core import Core
from app.runtime.pieces import in_pieces
from app.runtime.schedule_changes import ScheduleChange, key_of, next_look, write
from app.store import schedules
from app.store.schedules import ScheduleState

FIRE_LIMIT = 500
LOST_SECONDS = 0.02
"""How soon a check is repeated if other replicas were faster with everything that was due."""
FIRST_SECONDS = 3.0
"""How long firing goes before delivering when more schedules are due than one pass takes."""
MANY_SECONDS = 200
"""Decisions that span a longer time than this run in a thread."""
WRITE_SECONDS = 0.2
"""How long a decision waits at most for the rest of its group."""


class Scheduler:
    """A loop of the engine (`tick`)."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._behind_since: float | None = None

    @property
    def goes_first(self) -> bool:
        """Whether so many schedules are due that calls of handlers are held back, for FIRST_SECONDS at most."""
        return self._behind_since is not None and time.monotonic() - self._behind_since < FIRST_SECONDS

    async def tick(self) -> float | None:
        found, written, next_seconds = await fire(self._core, FIRE_LIMIT)
        if found < FIRE_LIMIT:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = time.monotonic()
        if next_seconds is not None and next_seconds <= 0:
            return 0 if written else LOST_SECONDS
        return next_seconds


class Fired(NamedTuple):
    found: int
    """How many schedules were due."""
    written: int
    """How many of them this replica was the first to process."""
    next_seconds: float | None
    """Seconds until the next is due; None if none will be."""


async def fire(core: Core, limit: int) -> Fired:
    """Fire up to about `limit` due schedules."""
    ids = core.schedules.awake(await schedules.due(core.db, limit))
    written = 0
    if ids:
        written = await _fire(core, ids)
    return Fired(len(ids), written, await schedules.next_look_seconds(core.db))


async def _fire(core: Core, ids: Sequence[int]) -> int:
    """Fire these schedules in order; return how many were written. Decisions are written before the next one takes long, so that a
    schedule with many times does not delay the others."""
    states = {state.id: state for state in await schedules.states(core.db, ids)}
    await core.schedules.load(core.db, list(states.values()))
    changes: list[ScheduleChange] = []
    until, written = time.monotonic() + WRITE_SECONDS, 0
    async for state in in_pieces(states[schedule_id] for schedule_id in ids if schedule_id in states):
        if (change := await _look(core, state)) is not None:
            changes.append(change)
        if time.monotonic() > until:
            written += await write(core, changes)
            changes, until = [], time.monotonic() + WRITE_SECONDS
    return written + await write(core, changes)


async def _look(core: Core, state: ScheduleState) -> ScheduleChange | None:
    definition = core.schedules.of(state)
    if definition is None:
        return None
    if state.next_nominal_at is None or state.deleted:
        return ScheduleChange.of(state, None)
    try:
        if (state.now - state.next_nominal_at).total_seconds() > MANY_SECONDS:
            return await asyncio.to_thread(_planned, core, definition, state, state.next_nominal_at)
        return _planned(core, definition, state, state.next_nominal_at)
    except Exception:
        core.schedules.rest(state.id)
        return None


def _planned(core: Core, definition: ScheduleDefinition, state: ScheduleState, first: datetime) -> ScheduleChange:
    grace = core.schedule_grace_seconds
    found = due_times(definition, key_of(state), first, state.now, grace_seconds=grace, paused=state.paused)
    left = None if definition.max_runs is None else definition.max_runs - state.runs_made
    decision = apply_overlap(found.lines, state.runs, definition.overlap, left)
    following = None if decision.exhausted else found.next_nominal_at
    looking = state.now if found.more and following else next_look(definition, state, following, state.now)
    return ScheduleChange(state, following, looking, state.failures, lines=decision.lines, cancel=decision.cancel)
