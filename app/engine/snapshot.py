"""The snapshot of all queues and schedules for /metrics, and log lines about schedules that have become overdue.

It is a separate loop because counting millions of tasks takes seconds, and a heartbeat that waits looks like a dead replica.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter

from app.domain.errors import Refusal
from app.engine.minutes import Minutes
from app.runtime import alarms, overview
from app.runtime.core import Core
from app.runtime.overview import Fleet
from app.runtime.pieces import in_pieces
from app.store.replicas import ALIVE_SECONDS, ReplicaRow
from app.store.schedules import ScheduleHealth
from app.store.stats import QueueOverview
from app.telemetry import events
from app.telemetry.logs import get_logger
from app.telemetry.metrics import ROLES
from app.telemetry.snapshots import (
    FleetSnapshot,
    HandlerSnapshot,
    LimitSnapshot,
    QueueSnapshot,
    ScheduleSnapshot,
    SourceSnapshot,
)

SNAPSHOT_SECONDS = 10.0
SNAPSHOT_SHARE = 0.05
"""The share of its time that a replica may spend on counting: with a deep backlog it counts less often."""

log = get_logger(__name__)


class Snapshot:
    """A loop of the engine (`tick`)."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._minutes = Minutes(core)
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
        self._log_overdue(fleet.schedules)
        core.server_alarms = alarms.server_alarms(fleet)
        metrics.set_snapshot(
            FleetSnapshot(
                queues=[_queue(row) async for row in in_pieces(fleet.queues)],
                schedules=[ScheduleSnapshot(r.tenant, r.name, r.overdue_seconds, r.missed) for r in fleet.schedules],
                handlers=[HandlerSnapshot(r.tenant, r.handler, r.enabled, r.state) for r in fleet.handlers],
                limits=list(_limits(fleet)),
                sources=[
                    SourceSnapshot(r.tenant, r.name, r.lag, r.oldest_age_seconds, r.failing_seconds or 0.0)
                    for r in fleet.sources
                ],
                replicas=_by_role(fleet.replicas),
                alarms=_by_code(alarms.alarms(fleet, core.schedule_grace_seconds)),
                connections=fleet.database.connections,
                max_connections=fleet.database.max_connections,
                oldest_xmin_seconds=fleet.database.oldest_xmin_age_seconds or 0.0,
            )
        )
        await self._minutes.sample(fleet.queues)

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


def _queue(row: QueueOverview) -> QueueSnapshot:
    return QueueSnapshot(
        row.id,
        row.tenant,
        row.queue,
        overview.depths(row),
        row.oldest_ready_age_seconds,
        paused=row.paused,
        max_depth=row.max_depth,
    )


def _limits(fleet: Fleet) -> Iterator[LimitSnapshot]:
    """Yield the limits on tasks at once, of every level; those that are off are left out, but for named ones."""
    for tenant, rows in groupby(fleet.queues, attrgetter("tenant")):
        own = list(rows)
        if own[0].tenant_limit is not None:
            yield LimitSnapshot("tenant", tenant, tenant, own[0].tenant_limit, sum(row.running for row in own))
        for row in own:
            if row.max_concurrency is not None:
                yield LimitSnapshot("queue", tenant, row.queue, row.max_concurrency, row.running)
    for handler in fleet.handlers:
        if handler.max_concurrency is not None:
            yield LimitSnapshot("handler", handler.tenant, handler.handler, handler.max_concurrency, handler.running)
    for limit in fleet.limits:
        most = None if limit.keyed else limit.max_concurrency
        yield LimitSnapshot("named", limit.tenant, limit.name, most, limit.used, limit.waiting_keys)


def _by_role(replicas: Iterable[ReplicaRow]) -> Mapping[str, int]:
    counted = Counter(row.roles for row in replicas if row.silent_seconds <= ALIVE_SECONDS and not row.draining)
    return {role: counted[role] for role in ROLES}


def _by_code(active: Iterable[alarms.Alarm]) -> Mapping[str, bool]:
    codes = {alarm["code"] for alarm in active}
    return {code: code in codes for code in alarms.CODES}
