"""What stands beside a queue in lists: how many tasks were enqueued in each minute of the last hour, read once a minute.

The last two minutes are left out. The current one is not over, and what the replicas have counted in the one before it may not be
written yet.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.store import stats
from app.store.clock import Clock
from app.store.db import Database

MINUTES = 60
MINUTE = timedelta(minutes=1)
Points = tuple[int, ...]
"""One per minute, the oldest first."""


@dataclass(slots=True)
class _Minute:
    """The points of a tenant's queues in one minute."""

    at: datetime
    points: dict[str, Points] = field(default_factory=dict)


class Sparklines:
    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._tenants: dict[int, _Minute] = {}

    async def of(self, tenant_id: int, names: Sequence[str]) -> dict[str, Points]:
        """Return the points of these queues. Raises Refusal (unavailable), Unavailable."""
        now = self._clock.now().replace(second=0, microsecond=0)
        minute = self._tenants.get(tenant_id)
        if minute is None or minute.at != now:
            self._tenants = {tenant: one for tenant, one in self._tenants.items() if one.at == now}
            minute = self._tenants[tenant_id] = _Minute(now)
        missing = [name for name in names if name not in minute.points]
        if missing:
            minute.points |= await self._read(tenant_id, missing, now)
        return {name: minute.points[name] for name in names}

    async def _read(self, tenant_id: int, names: Sequence[str], now: datetime) -> dict[str, Points]:
        upto = now - MINUTE
        since = upto - MINUTES * MINUTE
        counts = {name: [0] * MINUTES for name in names}
        for name, minute, enqueued in await stats.enqueued(self._db.reads(tenant_id), tenant_id, names, since, upto):
            counts[name][(minute - since) // MINUTE] = enqueued
        return {name: tuple(points) for name, points in counts.items()}
