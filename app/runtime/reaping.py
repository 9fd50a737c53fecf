"""Leases that ran out: their attempts are ended by whoever comes first, the reaper of any replica or a claim that finds them in
its way, and what follows is the same."""

from app.runtime.core import Core, Slot
from app.store import partitions, tasks
from app.store.db import PartitionMissing
from app.store.tasks import Reap
from app.telemetry import events
from app.telemetry.logs import get_logger

log = get_logger(__name__)


async def reap(core: Core, limit: int, tenant_id: int | None = None) -> Reap:
    """End attempts whose lease ran out, of one tenant or, with tenants in turns, of all."""
    try:
        found = await tasks.reap(core.db, limit, tenant_id)
    except PartitionMissing:
        await partitions.ensure_ahead(core.db)
        found = await tasks.reap(core.db, limit, tenant_id)
    if not found.reaped:
        return found
    dead = sum(r.dead for r in found.reaped)
    core.metrics.leases_reaped(len(found.reaped))
    events.emit(log, events.TASKS_REAPED, tasks=len(found.reaped), ready=len(found.reaped) - dead, dead=dead)
    for r in found.reaped:
        if not r.called:
            core.metrics.attempt_ended(r.tenant, r.queue, r.outcome, r.ran_seconds)
        if r.dead:
            core.waiters.ended((r.task_id,))
            core.stats.ended(r.queue_id, "dead", r.ran_seconds)
        else:
            core.signals.lane_ready(r.queue_id, r.lane)
        core.signals.freed(Slot(r.tenant_id, r.handler_id, r.queue_id))
    if dead:
        core.signals.batch_moved()
    return found
