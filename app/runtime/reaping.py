"""Reaping: attempts whose lease has expired are ended by whoever comes first, any replica's reaper or a claim that they block,
with the same consequences."""

from functools import partial

from app.runtime.counting import StatsBuffer
from app.runtime.signals import ConcurrencySlot, Signals
from app.runtime.waiters import TaskWaiters
from app.store import partitions, tasks
from app.store.callbacks import Told
from app.store.db import Database
from app.store.tasks import Reap
from app.telemetry import events
from app.telemetry.logs import get_logger
from app.telemetry.metrics import Metrics

log = get_logger(__name__)


class Reaping:
    def __init__(
        self,
        db: Database,
        metrics: Metrics,
        stats: StatsBuffer,
        waiters: TaskWaiters,
        signals: Signals,
        called_back: Told,
    ) -> None:
        self._db = db
        self._metrics = metrics
        self._stats = stats
        self._waiters = waiters
        self._signals = signals
        self._called_back = called_back

    async def reap(self, limit: int, tenant_id: int | None = None) -> Reap:
        """End attempts whose lease has expired, of one tenant or of all, with tenants taking turns."""
        found = await partitions.with_days(
            self._db, partial(tasks.reap, self._db, limit, tenant_id, told=self._called_back)
        )
        if not found.reaped:
            return found
        dead = sum(r.reason is not None for r in found.reaped)
        self._metrics.leases_reaped(len(found.reaped))
        events.emit(log, events.TASKS_REAPED, tasks=len(found.reaped), ready=len(found.reaped) - dead, dead=dead)
        for r in found.reaped:
            if not r.called:
                self._metrics.attempt_ended(r.tenant, r.queue, r.outcome, r.ran_seconds)
            if r.reason is not None:
                self._waiters.ended((r.task_id,))
                self._stats.ended(r.queue_id, "dead", r.ran_seconds, r.reason)
            else:
                self._stats.retried(r.queue_id)
                self._signals.lane_ready(r.queue_id, r.lane)
            self._signals.slot_freed(ConcurrencySlot(r.tenant_id, r.handler_id, r.queue_id))
        if dead:
            self._signals.batch_changed()
        return found
