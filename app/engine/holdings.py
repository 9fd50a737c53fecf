"""The leases that this replica holds for its calls in flight, from the claim's answer until each is settled.

A lease is renewed while its call lasts. The call is cut if the lease is revoked or lost, and at the end of a drain.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from app.engine.attempts import Attempt
from app.engine.grouped import GroupCall, parcels
from app.engine.held import Held, LaneKey, granted_seconds, refund, timeout_of
from app.runtime.catalogue import TargetCache
from app.runtime.core import Core
from app.store import tasks
from app.store.handlers import Target
from app.store.queues import Policy
from app.store.tasks import AttemptEnd, Claim, Claimed
from app.telemetry import events
from app.telemetry.logs import get_logger

STARTED_AT_ONCE = 32
"""How many calls are started before answers are read, and the next claim is sent."""

log = get_logger(__name__)


class Holdings:
    """Held leases. `ended` is called once for each call that was started, when it has ended."""

    def __init__(self, core: Core, *, lease_seconds: float, ended: Callable[[Held], None]) -> None:
        self._core = core
        self._lease_seconds = lease_seconds
        self._ended = ended
        self._targets = TargetCache(core.db, core.vault)
        self._attempts: dict[str, Attempt] = {}
        """By the token of the lease."""
        self._empty = asyncio.Event()
        self._empty.set()
        self._in_a_row = 0
        """How many calls have been started since answers could be read."""
        self._doubted = False
        self._suspected: set[str] = set()
        self._background: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        return len(self._attempts)

    def of_slots(self, outcomes: Sequence[AttemptEnd]) -> list[Held]:
        """Return those of the leases that these outcomes end that occupy a slot of a limit."""
        found = (self._attempts.get(outcome.token) for outcome in outcomes if outcome.kind != "hold")
        return [attempt.held for attempt in found if attempt is not None and attempt.held.slot is not None]

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def start(self, lane: LaneKey, claim: Claim, sent: float) -> None:
        """Start an attempt for every task of a claim that was sent at `sent` (monotonic seconds)."""
        try:
            policy, target = await self._targets.of(lane[0], claim)
        except Exception:
            self.spawn(self._give_back([refund(task) for task in claim.tasks]))
            raise
        if target.group is None:
            await self._start(claim, claim.tasks, None, lane, policy, target, sent)
            return
        if alone := [task for task in claim.tasks if task.options.target is not None]:
            await self._start(claim, alone, None, lane, policy, target, sent)
        together = [task for task in claim.tasks if task.options.target is None]
        for parcel in parcels(together, policy, target, target.group):
            shared = GroupCall(self._core)
            await self._start(claim, parcel, shared, lane, policy, target, sent)
            shared.send(self._core.clock.now())

    async def _start(
        self,
        claim: Claim,
        claimed: Sequence[Claimed],
        shared: GroupCall | None,
        lane: LaneKey,
        policy: Policy,
        target: Target,
        sent: float,
    ) -> None:
        now = self._core.clock.now()
        for task in claimed:
            if self._in_a_row >= STARTED_AT_ONCE:
                await asyncio.sleep(0)
                self._in_a_row, now = 0, self._core.clock.now()
            self._empty.clear()
            lease = granted_seconds(self._lease_seconds, timeout_of(task, policy, target))
            held = Held(
                task, lane, policy, target, lease, sent + lease, sent, claim.period, claim.half_open, claim.limited
            )
            attempt = self._attempts[task.token] = Attempt(self._core, held, self._lease_seconds, self._over)
            attempt.start(now, shared)
            self._in_a_row += 1

    def _over(self, attempt: Attempt) -> None:
        del self._attempts[attempt.held.task.token]
        if not self._attempts:
            self._empty.set()
        self._ended(attempt.held)

    async def _give_back(self, outcomes: list[AttemptEnd]) -> None:
        await asyncio.gather(*(self._core.settling.submit(outcome) for outcome in outcomes), return_exceptions=True)

    async def renew(self) -> float:
        """Renew, in one statement, what has been held past a third of its lease, and cut what is lost. A loop of the engine."""
        now = time.monotonic()
        third = self._lease_seconds / 3
        suspected, self._suspected = self._suspected, set()
        due = [
            attempt
            for attempt in self._attempts.values()
            if self._doubted or now - attempt.held.renewed >= third or attempt.held.task.task_id in suspected
        ]
        self._doubted = False
        if due:
            try:
                leases = [(attempt.held.task.task_id, attempt.held.task.token) for attempt in due]
                kept = await tasks.renew(self._core.db, leases, self._lease_seconds)
                self._core.metrics.group_written("renew", len(due))
                for attempt in due:
                    held = attempt.held
                    if held.task.token in kept:
                        held.renewed, held.lease_until = now, max(held.lease_until, now + self._lease_seconds)
                    else:
                        self._cut(attempt, "revoked" if held.task.task_id in suspected else "lost")
            finally:
                self._cut_overdue()
        return third / 4

    def doubt(self) -> None:
        """Make the next renewal check all leases, because some may have been revoked without a hint arriving."""
        self._doubted = True

    def suspect(self, task_ids: Iterable[str]) -> None:
        """Make the next renewal check the leases of these tasks: a notification says that they were revoked, but every role of
        the database can send one."""
        self._suspected.update(task_ids)

    def revoke(self, task_id: str) -> None:
        """End the task's call now, because it was cancelled."""
        for attempt in list(self._attempts.values()):
            if attempt.held.task.task_id == task_id:
                self._cut(attempt, "revoked")

    def _cut_overdue(self) -> None:
        now = time.monotonic()
        for attempt in list(self._attempts.values()):
            if attempt.held.lease_until <= now:
                self._cut(attempt, "lost")

    def _cut(self, attempt: Attempt, why: str) -> None:
        held = attempt.held
        if held.cut is None and held.task.token in self._attempts:
            attempt.cut(why)
            if why == "lost":
                self._core.metrics.leases_lost()
                late = round(max(0.0, time.monotonic() - held.lease_until), 3)
                events.emit(log, events.LEASE_LOST, late_seconds=late, reason="not renewed", **held.log_fields())

    async def drain(self, grace_seconds: float, hurried: asyncio.Event) -> int:
        """Wait for the calls in flight up to the grace, or until `hurried`; then cut the rest and release their tasks.

        Returns how many were cut. Outcomes being written are waited for, because nothing else may be written under the same token.
        """
        waits = [asyncio.ensure_future(event.wait()) for event in (self._empty, hurried)]
        await asyncio.wait(waits, timeout=grace_seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        left = [attempt for attempt in self._attempts.values() if not attempt.held.answered]
        for attempt in left:
            attempt.cut("drained")
        helds = [attempt.held for attempt in left]
        await self._give_back([held.abandoned() if held.max_attempts else held.refund() for held in helds])
        await self._empty.wait()
        for task in self._background:
            task.cancel()
        return len(left)
