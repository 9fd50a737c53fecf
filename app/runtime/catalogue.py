"""Caches of definitions: queues by name, schedules by id, and the targets of claims by version.

A cached definition may be outdated. Everything written with it includes its version, and the statement refuses an outdated one;
the caller then drops the entry here and reads again (`until_current`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from app.domain.errors import Refusal
from app.domain.fair_cache import FairCache
from app.domain.schedules.bodies import parse_schedule
from app.domain.schedules.definitions import ScheduleDefinition
from app.runtime.pieces import in_pieces
from app.store import handlers, queues, schedules
from app.store.db import Database, Reader
from app.store.handlers import Target
from app.store.queues import Policy, QueueRow
from app.store.schedules import ScheduleState
from app.store.tasks import Claim
from app.store.vault import Vault
from app.telemetry import events
from app.telemetry.logs import get_logger

MAX_QUEUE_BYTES = 64 * 1024**2
"""For all tenants; most of it is schemas."""
ROW_BYTES = 1_024
"""Approximate size of a cached queue without its schema."""
MAX_SCHEDULES = 20_000
MAX_TARGETS = 20_000
REST_SECONDS = 5.0

TRIES = 5
PAUSE_SECONDS = 0.02

log = get_logger(__name__)

T = TypeVar("T")


class KeepsChanging(Refusal):
    """Raised if a definition changed every time before the decision based on it was written."""

    def __init__(self, what: str) -> None:
        super().__init__("unavailable", f"{what} keeps changing; try again", retry_after_seconds=1)


async def until_current(attempt: Callable[[], Awaitable[T | None]], what: str) -> T:
    """Return the result of `attempt`, which reads definitions, decides by them and writes.

    If it returns None, one of them has changed since it was read, and it is called again, after growing pauses.
    Raises KeepsChanging, which names `what`, and what `attempt` raises.
    """
    for tried in range(TRIES):
        if tried:
            await asyncio.sleep(PAUSE_SECONDS * tried)
        if (result := await attempt()) is not None:
            return result
    raise KeepsChanging(what)


class QueueCache:
    """Queues by tenant and name, as many as fit."""

    def __init__(self, db: Database, *, max_bytes: int = MAX_QUEUE_BYTES) -> None:
        self._db = db
        self._kept: FairCache[str, QueueRow] = FairCache(max_weight=max_bytes)

    def get(self, tenant_id: int, name: str) -> QueueRow | None:
        """Return the cached queue; None says nothing about whether there is one."""
        return self._kept.get(tenant_id, name)

    async def load(self, tenant_id: int, name: str) -> QueueRow | None:
        """Read a queue that is not cached; None if there is none."""
        row = await self._read(tenant_id, name)
        if row is not None:
            self._kept.put(tenant_id, name, row, ROW_BYTES + len(row.payload_schema or ""))
        return row

    async def is_current(self, row: QueueRow) -> bool:
        """Return whether this row is still current; if not, drop it."""
        fresh = await self._read(row.tenant_id, row.name)
        current = fresh is not None and (fresh.id, fresh.version) == (row.id, row.version)
        if not current:
            self.forget(row.tenant_id, row.name)
        return current

    async def _read(self, tenant_id: int, name: str) -> QueueRow | None:
        return await queues.find(self._db.lookups(tenant_id), tenant_id, name)

    def forget(self, tenant_id: int, *names: str) -> None:
        for name in names:
            self._kept.forget(tenant_id, name)

    def forget_all(self, tenant_id: int) -> None:
        self._kept.forget_all(tenant_id)

    def __len__(self) -> int:
        return len(self._kept)


@dataclass(slots=True)
class ScheduleCache:
    """Schedules by id and version: a cached one may be outdated, but an outdated one is never used."""

    known: dict[int, tuple[int, ScheduleDefinition]] = field(default_factory=dict)
    resting: dict[int, float] = field(default_factory=dict)
    """Schedule -> until when, in monotonic seconds, this replica skips it after an internal error."""

    async def load(self, reader: Reader, states: Sequence[ScheduleState]) -> None:
        """Read the missing definitions in one statement."""
        wanted = [state.id for state in states if self.known.get(state.id, (None,))[0] != state.version]
        if not wanted:
            return
        if len(self.known) + len(wanted) > MAX_SCHEDULES:
            self.known.clear()
        async for schedule_id, version, text in in_pieces(await schedules.definitions(reader, wanted)):
            try:
                self.known[schedule_id] = (version, parse_schedule(text.encode(), 2**31))
            except Exception:
                self.rest(schedule_id)

    def of(self, state: ScheduleState) -> ScheduleDefinition | None:
        """Return the definition after `load`; None if the state is no longer current, or this version cannot read it."""
        version, definition = self.known.get(state.id, (None, None))
        return definition if version == state.version else None

    def rest(self, schedule_id: int) -> None:
        """Skip a schedule for a while, from an except block: one that this replica cannot process must not block the others."""
        events.emit(log, events.SCHEDULE_FAILED, schedule_id=schedule_id, exc_info=True)
        self.resting[schedule_id] = time.monotonic() + REST_SECONDS

    def awake(self, ids: Sequence[int]) -> list[int]:
        now = time.monotonic()
        self.resting = {schedule_id: until for schedule_id, until in self.resting.items() if until > now}
        return [schedule_id for schedule_id in ids if schedule_id not in self.resting]


@dataclass(slots=True)
class TargetCache:
    """Queues and handlers by the versions in a claim: a cached one may be outdated, but an outdated one is never used."""

    db: Database
    vault: Vault
    policies: dict[int, Policy] = field(default_factory=dict)
    targets: dict[int, Target] = field(default_factory=dict)

    async def of(self, queue_id: int, claim: Claim) -> tuple[Policy, Target]:
        """Raises Unavailable."""
        policy = self.policies.get(queue_id)
        if policy is None or policy.version != claim.queue_version:
            policy = await queues.load_policy(self.db, queue_id)
            assert policy is not None, "queues are marked deleted, never removed"
            if len(self.policies) >= MAX_TARGETS:
                self.policies.clear()
            self.policies[queue_id] = policy
        target = self.targets.get(claim.handler_id)
        if target is None or target.version != claim.handler_version:
            target = await handlers.load_target(self.db, self.vault, claim.handler_id)
            assert target is not None, "handlers are marked deleted, never removed"
            if target.secrets_lost:
                events.emit(log, events.HANDLER_SECRETS_LOST, tenant=policy.tenant, handler=target.name)
            if len(self.targets) >= MAX_TARGETS:
                self.targets.clear()
            self.targets[claim.handler_id] = target
        return policy, target
