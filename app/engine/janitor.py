"""What time does to tasks: promote what is due, expire what is too late, reap what nobody holds any more, fold
what happened to batches, and cancel what is left of those that are cancelled.

Every replica does all of it; SKIP LOCKED lets each row be moved once. Each sweep answers when the next row is due, so a loop
sleeps until then, and never longer than its poll interval, which is the truth where a hint was lost.
"""

from app.service.batches import sweep_cancelled
from app.service.context import Core, Slot
from app.store import batches, tasks
from app.telemetry import events
from app.telemetry.logs import get_logger

PROMOTE_LIMIT = 1000
EXPIRE_LIMIT = 500
REAP_LIMIT = 500
FOLD_LIMIT = 200
POLL_SECONDS = 1.0
REAP_SECONDS = 1.0

log = get_logger(__name__)


class Janitor:
    """A tick for each of five loops."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def promote(self) -> float:
        due = await tasks.promote(self._core.db, PROMOTE_LIMIT)
        if due.moved:
            self._core.metrics.group_written("promote", due.moved)
        for lane in due.lanes:
            self._core.signals.lane_ready(*lane)
        if due.moved == PROMOTE_LIMIT:
            return 0
        return POLL_SECONDS if due.next_seconds is None else min(POLL_SECONDS, due.next_seconds)

    async def expire(self) -> float:
        due, ended = await tasks.expire(self._core.db, EXPIRE_LIMIT)
        for queue_id, count in ended.items():
            for _ in range(count):
                self._core.stats.ended(queue_id, "dead", None)
        if due.moved:
            self._core.waiters.look()
            self._core.signals.batch_moved()
            events.emit(log, events.TASKS_EXPIRED, tasks=due.moved)
        if due.moved == EXPIRE_LIMIT:
            return 0
        return POLL_SECONDS if due.next_seconds is None else min(POLL_SECONDS, due.next_seconds)

    async def reap(self) -> float:
        reaped = await tasks.reap(self._core.db, REAP_LIMIT)
        if reaped:
            dead = sum(r.dead for r in reaped)
            if dead:
                self._core.signals.batch_moved()
            self._core.metrics.leases_reaped(len(reaped))
            events.emit(log, events.TASKS_REAPED, tasks=len(reaped), ready=len(reaped) - dead, dead=dead)
            for r in reaped:
                if not r.called:
                    self._core.metrics.attempt_ended(r.tenant, r.queue, r.outcome, r.ran_seconds)
                if r.dead:
                    self._core.waiters.ended((r.task_id,))
                    self._core.stats.ended(r.queue_id, "dead", r.ran_seconds)
                else:
                    self._core.signals.lane_ready(r.queue_id, r.lane)
                self._core.signals.freed(Slot(r.tenant_id, r.handler_id, r.queue_id))
        return 0 if len(reaped) == REAP_LIMIT else REAP_SECONDS

    async def fold(self) -> float:
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
        return 0 if folded.batches == FOLD_LIMIT else POLL_SECONDS

    async def sweep(self) -> float:
        """What a replica that died, or the start of a schedule's run, has left to be cancelled."""
        return 0 if await sweep_cancelled(self._core) else POLL_SECONDS
