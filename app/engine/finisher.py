"""The ends of schedules' runs: record them in the ledger, and start what waited for them.

Every replica does it; compare-and-set decides who was first (runtime/schedule_changes.py).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from app.domain.schedules.definitions import ScheduleDefinition
from app.domain.schedules.firing import Runs
from app.runtime.core import Core
from app.runtime.schedule_changes import ScheduleChange, next_look, waiting_starts_due, write
from app.store import ledger, schedules
from app.store.ledger import Finished, WaitingStart
from app.store.schedules import ScheduleState

FINISH_LIMIT = 200
LOST_SECONDS = 0.02
"""How soon it checks again after it has found any."""


class Finisher:
    """A loop of the engine (`tick`)."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def tick(self) -> float | None:
        found = await finish(self._core, FINISH_LIMIT)
        return LOST_SECONDS if found else None


async def finish(core: Core, limit: int) -> int:
    """Record the end of up to `limit` runs and start what waited for them; return how many were found."""
    found = await ledger.finished(core.db, limit)
    if not found:
        return 0
    states = await schedules.states(core.db, core.schedules.awake(sorted({end.schedule_id for end in found})))
    await core.schedules.load(core.db, states)
    # read after the states: if another replica has recorded any of it since, the state is no longer current
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
    """Return, by schedule, the runs whose end is not recorded yet."""
    running = await ledger.running(core.db, [end.run_id for end in found])
    ends: defaultdict[int, list[Finished]] = defaultdict(list)
    for end in found:
        if end.run_id in running:
            ends[end.schedule_id].append(end)
    return ends


def _ended(
    definition: ScheduleDefinition, state: ScheduleState, ends: list[Finished], waiting: WaitingStart | None
) -> ScheduleChange:
    change = ScheduleChange.of(state, None)
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
    change.look_at = next_look(definition, replace(state, paused=paused), state.next_nominal_at, state.now)
    if not paused and not state.deleted:
        left = Runs(
            state.runs.running - len(ends), state.runs.catching_up - sum(end.cause == "catch_up" for end in ends)
        )
        change.starts = waiting_starts_due(definition, waiting, left)
    return change
