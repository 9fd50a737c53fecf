"""Time-driven changes of tasks: promote due tasks, expire late ones, reap expired leases, fold changes of batches, sweep cancelled
batches and flows, work on actions, and take note of what sluice.enqueue has added.

Every replica does all of it; SKIP LOCKED makes sure that each row is moved once. Each statement returns when the next row is due,
so a loop sleeps until then; hints wake it sooner, and so does the engine's poll, in case one was lost. Tenants share every
statement's limit.
"""

import time
from functools import partial

from app.runtime import acting
from app.runtime.cancelling import sweep_batch
from app.runtime.core import Core
from app.store import actions, arrivals, batches, flows, partitions, tasks
from app.store.failures import Held
from app.telemetry import events
from app.telemetry.logs import get_logger

PROMOTE_LIMIT = 1000
EXPIRE_LIMIT = 500
REAP_LIMIT = 500
FOLD_LIMIT = 200
ARRIVE_LIMIT = 5000
SWEEP_SECONDS = 0.2
"""How long the loop stays with one batch or action before it moves to the next."""
ROUND_SECONDS = 2.0
"""How long a round takes before they are listed again; each round starts with one per tenant."""
HELD_SECONDS = 1.0
"""How soon a batch or an action goes on that a transaction of others holds up."""
LOST_SECONDS = 0.02
"""How soon a check is repeated if other replicas hold everything that is due."""

log = get_logger(__name__)


class Janitor:
    """A tick for each of eight loops."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def promote(self) -> float | None:
        due = await tasks.promote(self._core.db, PROMOTE_LIMIT)
        if due.moved:
            self._core.metrics.group_written("promote", due.moved)
        for lane in due.lanes:
            self._core.signals.lane_ready(*lane)
        return _until(due.next_seconds, due.moved)

    async def expire(self) -> float | None:
        due, ended = await partitions.with_days(
            self._core.db, partial(tasks.expire, self._core.db, EXPIRE_LIMIT, told=self._core.called_back)
        )
        for queue_id, count in ended.items():
            self._core.stats.ended_waiting(queue_id, "dead", "expired", count)
        if due.moved:
            self._core.waiters.look()
            self._core.signals.batch_changed()
            events.emit(log, events.TASKS_EXPIRED, tasks=due.moved)
        return _until(due.next_seconds, due.moved)

    async def reap(self) -> float | None:
        found = await self._core.reaping.reap(REAP_LIMIT)
        return _until(found.next_seconds, len(found.reaped))

    async def fold(self) -> float | None:
        folded = await batches.fold(self._core.db, FOLD_LIMIT)
        if folded.batches:
            self._core.metrics.group_written("fold", folded.batches)
        for batch_id in folded.completed:
            events.emit(log, events.BATCH_COMPLETED, batch=batch_id)
        if folded.completed:
            self._core.signals.batch_completed()
        for queue_id, count in folded.queues.items():
            self._core.stats.enqueued(queue_id, count)
            self._core.signals.lane_ready(queue_id, 0)
        return 0 if folded.more else None

    async def sweep(self) -> float | None:
        """Cancel some unfinished tasks of cancelled batches, whoever cancelled them, with tenants taking turns.

        This includes what a crashed replica, or the start of a schedule's run, has left.
        """
        until, more, held = time.monotonic() + ROUND_SECONDS, False, False
        for batch_id in await batches.unswept(self._core.db):
            try:
                more = not await sweep_batch(self._core, self._core.db, batch_id, SWEEP_SECONDS) or more
            except Held:
                held = True
            if (more or held) and time.monotonic() > until:
                break
        return 0 if more else HELD_SECONDS if held else None

    async def sweep_flows(self) -> None:
        """Look after flows of tenants for whom nobody claims, and hint the lanes that may go on."""
        swept = await flows.sweep(self._core.db)
        self._core.metrics.flows_rescued(swept.rescued)
        for lane in swept.opened:
            self._core.signals.lane_ready(*lane)

    async def act(self) -> float | None:
        """Work on actions, whoever started them, with tenants taking turns. An error of one holds up none of the others."""
        until, soonest, failed = time.monotonic() + ROUND_SECONDS, None, None
        for action_id in await actions.due(self._core.db):
            try:
                wait = await acting.work(self._core, self._core.db, action_id, SWEEP_SECONDS)
            except Held:
                wait = HELD_SECONDS
            except Exception as error:
                failed, wait = error, 0.0
            if wait is not None:
                soonest = wait if soonest is None else min(soonest, wait)
            if wait == 0 and time.monotonic() > until:
                break
        if failed is not None:
            raise failed
        return soonest

    async def arrive(self) -> float | None:
        """Count what transactions of others have enqueued, and wake whoever must act on it."""
        found = await arrivals.take(self._core.db, ARRIVE_LIMIT)
        for arrival in found:
            self._core.stats.enqueued(arrival.queue_id, arrival.created)
            self._core.signals.lane_ready(arrival.queue_id, arrival.handler_id)
            if arrival.due_at is not None:
                self._core.signals.task_due_at(arrival.due_at.timestamp())
        return 0 if sum(arrival.taken for arrival in found) == ARRIVE_LIMIT else None


def _until(next_seconds: float | None, moved: int) -> float | None:
    """Return the seconds until the next row is due, or a moment if one is due but was not moved, because others hold it."""
    if next_seconds is not None and next_seconds <= 0 and not moved:
        return LOST_SECONDS
    return next_seconds
