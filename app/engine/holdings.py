"""The leases that this replica holds for its calls in flight, from the claim's answer until each is settled.

A lease is renewed while its call lasts. The call is cut if the lease is revoked or lost, and at the end of a drain.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from app.engine.attempts import Attempts
from app.engine.held import Held, LaneKey, granted_seconds, refund, timeout_of
from app.runtime.catalogue import TargetCache
from app.runtime.core import Core
from app.store import tasks
from app.store.tasks import AttemptEnd, Claim
from app.telemetry import events
from app.telemetry.logs import get_logger

log = get_logger(__name__)


class Holdings:
    """Held leases. `ended` is called once for each call that was started, when it has ended."""

    def __init__(self, core: Core, *, lease_seconds: float, ended: Callable[[Held], None]) -> None:
        self._core = core
        self._lease_seconds = lease_seconds
        self._ended = ended
        self._attempts = Attempts(core, lease_seconds=lease_seconds)
        self._targets = TargetCache(core.db, core.vault)
        self._held: dict[str, Held] = {}
        self._doubted = False
        self._background: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        return len(self._held)

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
        loop = asyncio.get_running_loop()
        for task in claim.tasks:
            lease = granted_seconds(self._lease_seconds, timeout_of(task, policy, target))
            held = Held(task, lane, policy, target, lease, sent + lease, sent)
            self._held[task.token] = held
            held.runner = loop.create_task(self._run(held))

    async def _run(self, held: Held) -> None:
        try:
            await self._attempts.run(held)
        except asyncio.CancelledError:
            if held.cut is None:
                raise
        except Exception as error:
            events.emit(log, events.CALL_FAILED, exc_info=error, **held.log_fields())
        finally:
            del self._held[held.task.token]
            self._ended(held)

    async def _give_back(self, outcomes: list[AttemptEnd]) -> None:
        await asyncio.gather(*(self._core.settling.submit(outcome) for outcome in outcomes), return_exceptions=True)

    async def renew(self) -> float:
        """Renew, in one statement, what has been held past a third of its lease, and cut what is lost. A loop of the engine."""
        now = time.monotonic()
        third = self._lease_seconds / 3
        due = [held for held in self._held.values() if self._doubted or now - held.renewed >= third]
        self._doubted = False
        if due:
            try:
                leases = [(held.task.task_id, held.task.token) for held in due]
                kept = await tasks.renew(self._core.db, leases, self._lease_seconds)
                self._core.metrics.group_written("renew", len(due))
                for held in due:
                    if held.task.token in kept:
                        held.renewed, held.lease_until = now, max(held.lease_until, now + self._lease_seconds)
                    else:
                        self._cut(held, "lost")
            finally:
                self._cut_overdue()
        return third / 4

    def doubt(self) -> None:
        """Make the next renewal check all leases, because some may have been revoked without a hint arriving."""
        self._doubted = True

    def revoke(self, task_id: str) -> None:
        """End the task's call now, because it was cancelled."""
        for held in list(self._held.values()):
            if held.task.task_id == task_id:
                self._cut(held, "revoked")

    def _cut_overdue(self) -> None:
        now = time.monotonic()
        for held in list(self._held.values()):
            if held.lease_until <= now:
                self._cut(held, "lost")

    def _cut(self, held: Held, why: str) -> None:
        if held.cut is None and held.runner is not None:
            held.cut = why
            held.runner.cancel()
            if why == "lost":
                self._core.metrics.leases_lost()
                late = round(max(0.0, time.monotonic() - held.lease_until), 3)
                events.emit(log, events.LEASE_LOST, late_seconds=late, reason="not renewed", **held.log_fields())

    async def drain(self, grace_seconds: float, hurried: asyncio.Event) -> int:
        """Wait for the calls in flight up to the grace, or until `hurried`; then cut the rest and release their tasks.

        Returns how many were cut. Outcomes being written are waited for, because nothing else may be written under the same token.
        """
        runners = [held.runner for held in self._held.values() if held.runner is not None]
        if runners:
            ended = asyncio.gather(*runners, return_exceptions=True)
            skipped = asyncio.ensure_future(hurried.wait())
            await asyncio.wait((ended, skipped), timeout=grace_seconds, return_when=asyncio.FIRST_COMPLETED)
            skipped.cancel()
        left = [h for h in self._held.values() if h.runner is not None and not h.answered and h.cut is None]
        for held in left:
            held.cut = "drained"
            assert held.runner is not None
            held.runner.cancel()
        await self._give_back([held.abandoned() if held.max_attempts else held.refund() for held in left])
        await asyncio.gather(*(h.runner for h in list(self._held.values()) if h.runner), return_exceptions=True)
        for task in self._background:
            task.cancel()
        return len(left)
