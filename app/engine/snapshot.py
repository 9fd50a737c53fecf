"""The snapshot of all queues and schedules for /metrics, and log lines about schedules that have become overdue.

It is a separate loop because counting millions of tasks takes seconds, and a heartbeat that waits looks like a dead replica.
"""

import asyncio
import time
from collections.abc import Sequence

from app.domain.errors import Refusal
from app.runtime import overview
from app.runtime.core import Core
from app.runtime.pieces import in_pieces
from app.store.schedules import ScheduleHealth
from app.telemetry import events
from app.telemetry.logs import get_logger
from app.telemetry.metrics import HandlerSnapshot, LimitSnapshot, QueueSnapshot, ScheduleSnapshot

SNAPSHOT_SECONDS = 10.0
SNAPSHOT_SHARE = 0.05
"""The share of its time that a replica may spend on counting: with a deep backlog it counts less often."""

log = get_logger(__name__)


class Snapshot:
    """A loop of the engine (`tick`)."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._overdue: set[tuple[str, str]] = set()
        """Schedules, as (tenant, name), that were overdue at the last check."""
        self.counted = asyncio.Event()
        """Set when the first snapshot has been taken, or has failed."""

    async def tick(self) -> float:
        began = time.monotonic()
        try:
            await self.look()
        except Refusal:
            pass  # the heartbeat reports outages; a count that took too long is not repeated at once
        self.counted.set()
        return max(SNAPSHOT_SECONDS, (time.monotonic() - began) / SNAPSHOT_SHARE)

    async def look(self) -> None:
        """Take the snapshot. Raises Unavailable, Refusal."""
        core, metrics = self._core, self._core.metrics
        fleet = await overview.read_fleet(core.db)
        limits = await overview.named_limits(core.db)
        metrics.set_queue_snapshot(
            [
                QueueSnapshot(row.tenant, row.queue, overview.depths(row), row.oldest_ready_age_seconds)
                async for row in in_pieces(fleet.queues)
            ]
        )
        self._log_overdue(fleet.schedules)
        metrics.set_schedule_snapshot(
            [ScheduleSnapshot(row.tenant, row.name, row.overdue_seconds, row.missed) for row in fleet.schedules]
        )
        metrics.set_handler_snapshot(
            [HandlerSnapshot(row.tenant, row.handler, row.state, row.max_concurrency) for row in fleet.handlers]
        )
        metrics.set_limit_snapshot(
            [LimitSnapshot(row.tenant, row.name, row.max_concurrency, row.used, row.waiting_keys) for row in limits]
        )

    def _log_overdue(self, schedules: Sequence[ScheduleHealth]) -> None:
        grace = self._core.schedule_grace_seconds
        late = {(row.tenant, row.name): row.overdue_seconds for row in schedules if row.overdue_seconds > grace}
        for tenant, name in late.keys() - self._overdue:
            events.emit(
                log,
                events.SCHEDULE_OVERDUE,
                tenant=tenant,
                schedule=name,
                overdue_seconds=round(late[tenant, name], 3),
            )
        self._overdue = set(late)
