"""After a cancellation: count the tasks, and notify their holders and those who wait for them."""

import time
from collections.abc import Sequence
from functools import partial

from app.runtime.core import Core
from app.runtime.signals import ConcurrencySlot
from app.store import batches, partitions
from app.store.db import Reader
from app.store.tasks import Cancelled

CHUNK = 500
"""How many tasks of a batch are cancelled per transaction."""


def after_cancel(core: Core, cancelled: Sequence[Cancelled], reason: str) -> None:
    """Count tasks that were cancelled for one reason, and notify.

    A replica that was calling a handler counts the attempt itself; others are counted here.
    """
    if not cancelled:
        return
    for task in cancelled:
        core.stats.ended_waiting(task.queue_id, "cancelled", reason)
        if task.owner is not None:
            core.signals.revoked(task.task_id, task.owner)
        elif task.outcome is not None and task.ran_seconds is not None:
            core.metrics.attempt_ended(task.tenant, task.queue, task.outcome, task.ran_seconds)
    core.waiters.ended(task.task_id for task in cancelled)
    core.signals.batch_changed()
    for slot in {
        ConcurrencySlot(task.tenant_id, task.handler_id, task.queue_id)
        for task in cancelled
        if task.outcome is not None
    }:
        core.signals.slot_freed(slot)


async def sweep_batch(core: Core, db: Reader, batch_id: str, seconds: float) -> bool:
    """Cancel in chunks until nothing is left or the time is up; return whether nothing is left. Raises Held."""
    until, wait = time.monotonic() + seconds, False
    while True:
        swept = await partitions.with_days(
            core.db, partial(batches.sweep, db, batch_id, CHUNK, wait=wait, told=core.called_back)
        )
        wait = not swept.tasks
        after_cancel(core, swept.tasks, swept.reason)
        if swept.done or time.monotonic() > until:
            return swept.done
