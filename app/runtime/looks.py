"""Looks at tenants, each shared by all who ask: the viewers of a tenant cost as much as one of them, however many they are.

A look is read again when it is asked for and FRESH_SECONDS old. One that takes long is read less often, so that a deep backlog,
whose tasks must be counted, costs at most SHARE of one of the database's cores. What happened in minutes that are over cannot
change, so they are kept, and only the newest are read: of each queue one, most of the time.
"""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from msgspec import structs

from app.domain.histograms import percentile, summed
from app.domain.verdicts import WINDOW_MINUTES
from app.store import looks
from app.store.clock import Clock
from app.store.db import Database
from app.store.looks import MinuteLook, TenantLook

FRESH_SECONDS = 2.0
SHARE = 0.2
KEPT_SECONDS = 60.0
"""How long a look that nobody asks for is kept."""
DEATHS_MINUTES = 15
"""How long a task that died counts as one that died lately."""
SETTLED_SECONDS = 5.0
"""How long after a minute's end the last counts of it may be committed: they are added to the minute in which they are sent."""
NO_MINUTE = MinuteLook(0, 0, 0, 0, 0, 0, 0, [], [])


@dataclass(frozen=True, slots=True)
class Recent:
    """What happened to a queue in the window: WINDOW_MINUTES full minutes and the current one."""

    enqueued: int = 0
    started: int = 0
    succeeded: int = 0
    dead: int = 0
    cancelled: int = 0
    retried: int = 0
    wait: tuple[float | None, float | None] = (None, None)
    """The median and the 95th percentile in seconds, as in `run`."""
    run: tuple[float | None, float | None] = (None, None)


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """A look at a tenant. `recent` is in the order of its queues."""

    seen: TenantLook
    recent: list[Recent]
    window_minutes: float
    answer_seconds: float
    """How long the database took."""
    shown: "dict[object, asyncio.Future[Any]]" = field(default_factory=dict)
    """What has been made of it, by for whom."""


@dataclass(slots=True)
class Window:
    """The minutes of one queue: those that are over, summed, and the current one."""

    minutes: dict[int, MinuteLook] = field(default_factory=dict)
    deaths: dict[int, int] = field(default_factory=dict)
    """How many tasks died in each of the last DEATHS_MINUTES minutes in which some did."""
    _sum: MinuteLook = NO_MINUTE
    _upto: int = 0
    _recent: tuple[int, MinuteLook | None, Recent] = (0, None, Recent())
    """The current minute, what had happened in it, and what was made of that: most queues are idle."""

    def add(self, fresh: list[MinuteLook], deaths: list[tuple[int, int]], current: int) -> None:
        self.deaths.update(deaths)
        for minute in fresh:
            if self.minutes.get(minute.at) != minute:
                self.minutes[minute.at] = minute
                self._upto = min(self._upto, minute.at)
        if self._upto != current:
            self.minutes = {at: one for at, one in self.minutes.items() if at >= current - WINDOW_MINUTES * 60}
            self.deaths = {at: dead for at, dead in self.deaths.items() if at > current - DEATHS_MINUTES * 60}
            self._sum = _sum(one for at, one in self.minutes.items() if at < current)
            self._upto = current

    def recent(self, current: int) -> Recent:
        if not self.minutes:
            return Recent()
        now = self.minutes.get(current)
        if self._recent[:2] == (current, now):
            return self._recent[2]
        self._recent = current, now, self._made(now)
        return self._recent[2]

    def _made(self, now: MinuteLook | None) -> Recent:
        total = self._sum if now is None else _sum((self._sum, now))
        return Recent(
            total.enqueued,
            total.started,
            total.succeeded,
            total.dead,
            total.cancelled,
            total.retried,
            (percentile(total.wait, 0.5), percentile(total.wait, 0.95)),
            (percentile(total.run, 0.5), percentile(total.run, 0.95)),
        )


def _sum(minutes: Iterator[MinuteLook] | tuple[MinuteLook, ...]) -> MinuteLook:
    rows = list(minutes)
    return MinuteLook(
        0,
        sum(row.enqueued for row in rows),
        sum(row.started for row in rows),
        sum(row.succeeded for row in rows),
        sum(row.dead for row in rows),
        sum(row.cancelled for row in rows),
        sum(row.retried for row in rows),
        summed(row.wait for row in rows),
        summed(row.run for row in rows),
    )


@dataclass(slots=True)
class _Tenant:
    asked_at: float
    look: Look | None = None
    read_at: float = 0.0
    """When the reading of `look` began, in monotonic seconds."""
    fresh_seconds: float = FRESH_SECONDS
    operator_at: float = -KEPT_SECONDS
    """When an operator last asked. While operators ask, looks include the database."""
    reading: "asyncio.Task[Look] | None" = None
    windows: dict[int, Window] = field(default_factory=dict)
    unsettled: datetime | None = None
    """The first minute that may have changed since `look`."""


class Looks:
    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._tenants: dict[int, _Tenant] = {}

    async def at(self, tenant_id: int, *, operates: bool) -> Look:
        """Return a look at this tenant that is fresh; with `operates`, it includes the database. Raises Refusal (unavailable),
        Unavailable."""
        now = time.monotonic()
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            self._forget(now)
            tenant = self._tenants[tenant_id] = _Tenant(now)
        tenant.asked_at = now
        if operates:
            tenant.operator_at = now
        look = tenant.look if now - tenant.read_at < tenant.fresh_seconds else None
        while look is None or (operates and look.seen.database is None):
            if tenant.reading is None:
                tenant.reading = asyncio.ensure_future(self._read(tenant_id, tenant))
                tenant.reading.add_done_callback(lambda done: _finished(tenant, done))
            look = await asyncio.shield(tenant.reading)  # others wait for the same answer
        return look

    def newest(self, tenant_id: int) -> Look | None:
        """Return the look at this tenant that was read last, if there is one, without reading."""
        tenant = self._tenants.get(tenant_id)
        return None if tenant is None else tenant.look

    def _forget(self, now: float) -> None:
        self._tenants = {
            tenant_id: tenant
            for tenant_id, tenant in self._tenants.items()
            if tenant.reading is not None or now - tenant.asked_at < KEPT_SECONDS
        }

    async def _read(self, tenant_id: int, tenant: _Tenant) -> Look:
        began = time.monotonic()
        floor, deaths_floor = (self._clock.now() - timedelta(minutes=n) for n in (WINDOW_MINUTES + 1, DEATHS_MINUTES))
        since, deaths_since = (max(one, tenant.unsettled or one) for one in (floor, deaths_floor))
        operated = began - tenant.operator_at < KEPT_SECONDS
        seen = await looks.look(self._db.reads(tenant_id), tenant_id, since, deaths_since, database=operated)
        took = time.monotonic() - began
        minute = seen.now.replace(second=0, microsecond=0)
        current = int(minute.timestamp())
        tenant.windows = {queue.id: tenant.windows.get(queue.id) or Window() for queue in seen.queues}
        shown, recent = [], []
        for queue in seen.queues:
            window = tenant.windows[queue.id]
            window.add(queue.minutes, queue.deaths, current)
            recent.append(window.recent(current))
            lately = sum(window.deaths.values()) if window.deaths else 0
            shown.append(queue if lately == queue.dead_lately else structs.replace(queue, dead_lately=lately))
        settled = (seen.now - minute).total_seconds() >= SETTLED_SECONDS
        tenant.unsettled = minute if settled else minute - timedelta(minutes=1)
        seen = replace(seen, queues=shown)
        tenant.look = Look(seen, recent, WINDOW_MINUTES + (seen.now - minute).total_seconds() / 60, took)
        tenant.read_at, tenant.fresh_seconds = began, max(FRESH_SECONDS, took / SHARE)
        return tenant.look


def _finished(tenant: _Tenant, reading: "asyncio.Task[Look]") -> None:
    if tenant.reading is reading:
        tenant.reading = None
    if not reading.cancelled():
        reading.exception()  # everyone who asked may have gone, so nobody else would retrieve it
