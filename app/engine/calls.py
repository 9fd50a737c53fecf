"""Calls in flight: what this replica holds a lease for, from the claim's answer to the settled outcome.

The life of a call: wait for its target's definition, check that the lease still carries it, send, decide, settle, forget.
Two things cut it short, and neither writes an outcome: its lease was revoked (the task was cancelled), or lost (a renewal was
refused, or did not come through before this replica's own clock says the lease is over). Whatever the handler still does, the
next holder's token is the only one that can settle.
"""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.delivery.kinds import Call
from app.domain.answers import Answer, NoAnswer
from app.domain.errors import Refusal
from app.domain.followups import split_page
from app.domain.handlers import SECRETS_LOST
from app.domain.outcomes import RetryPolicy, Settlement, decide, decide_refused_followups
from app.domain.retries import merged
from app.runtime.core import Caller, Core, Slot
from app.runtime.settling import RETRY_SECONDS, outcome_of
from app.service import followups
from app.service import handlers as handler_service
from app.store import handlers, queues, tasks
from app.store.db import Unavailable
from app.store.handlers import Target
from app.store.queues import Policy
from app.store.tasks import Claim, Claimed, Outcome
from app.telemetry import events
from app.telemetry.logs import get_logger
from app.telemetry.tracing import AttemptSpan, TraceContext

TIMEOUT_MARGIN_SECONDS = 5.0
"""What a lease has beyond the timeout of its call, for settling; the claim grants it."""
MIN_LEASE_SECONDS = 5.0
SEND_SLACK = 0.2
"""The part of a lease that may be gone before the call is sent."""
CUT = {"revoked": "cancelled", "drained": "failed"}
"""The outcome of a call by what cut it short; else the lease was lost."""

log = get_logger(__name__)

LaneKey = tuple[int, int]


@dataclass(slots=True, eq=False)
class Held:
    """A lease this replica holds."""

    task: Claimed
    lane: LaneKey
    policy: Policy
    target: Target
    lease_until: float
    """Monotonic seconds, counted from before the statement that granted or renewed it was sent."""
    renewed: float
    runner: asyncio.Task[None] | None = None
    cut: str | None = None
    """Why the call was cut: revoked, lost or drained."""
    max_attempts: int = 0
    """Set when the call is sent; 0 before."""
    answered: bool = False

    @property
    def slot(self) -> Slot | None:
        """None where nothing limits it."""
        limited = self.policy.limited or self.target.limited
        return Slot(self.policy.tenant_id, self.target.id, self.policy.id) if limited else None


@dataclass(slots=True)
class Definitions:
    """Queues and handlers by the versions a claim names: what is cached can be old, what is used cannot."""

    core: Core
    policies: dict[int, Policy] = field(default_factory=dict)
    targets: dict[int, Target] = field(default_factory=dict)

    async def of(self, queue_id: int, claim: Claim) -> tuple[Policy, Target]:
        policy = self.policies.get(queue_id)
        if policy is None or policy.version != claim.queue_version:
            policy = await queues.load_policy(self.core.db, queue_id)
            assert policy is not None, "queues are marked deleted, never removed"
            self.policies[queue_id] = policy
        target = self.targets.get(claim.handler_id)
        if target is None or target.version != claim.handler_version:
            target = await handlers.load_target(self.core.db, self.core.vault, claim.handler_id)
            assert target is not None, "handlers are marked deleted, never removed"
            if target.secrets_lost:
                events.emit(log, events.HANDLER_SECRETS_LOST, tenant=policy.tenant, handler=target.name)
            self.targets[claim.handler_id] = target
        return policy, target


class Calls:
    """`ended` is called with every call that has ended, once for each that was started."""

    def __init__(self, core: Core, *, lease_seconds: float, ended: Callable[[Held], None]) -> None:
        self._core = core
        self._lease_seconds = lease_seconds
        self._ended = ended
        self._definitions = Definitions(core)
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
        """Begin a call for every task of a claim that was sent at `sent` (monotonic)."""
        try:
            policy, target = await self._definitions.of(lane[0], claim)
        except Exception:
            self.spawn(self._give_back([_refund(task) for task in claim.tasks]))
            raise
        loop = asyncio.get_running_loop()
        for task in claim.tasks:
            lease = self._lease_of(task, policy, target)
            held = Held(task, lane, policy, target, sent + lease, sent)
            self._held[task.token] = held
            held.runner = loop.create_task(self._run(held))

    def _lease_of(self, task: Claimed, policy: Policy, target: Target) -> float:
        timeout = _timeout(task, policy, target)
        return max(MIN_LEASE_SECONDS, min(self._lease_seconds, timeout + TIMEOUT_MARGIN_SECONDS))

    # one call

    async def _run(self, held: Held) -> None:
        try:
            await self._attempt(held)
        except asyncio.CancelledError:
            if held.cut is None:
                raise
        except Exception as error:
            events.emit(log, events.CALL_FAILED, exc_info=error, **_where(held))
        finally:
            del self._held[held.task.token]
            self._ended(held)

    async def _attempt(self, held: Held) -> None:
        task, policy, target = held.task, held.policy, held.target
        if held.lease_until - time.monotonic() < self._lease_of(task, policy, target) * (1 - SEND_SLACK):
            await self._settle(held, _refund(task))
            return
        span = self._started(held)
        began, outcome, status = time.monotonic(), "lease_expired", None
        try:
            retry = merged(policy.retry, task.retry)
            held.max_attempts = retry.max_attempts
            call = _call(self._core, held, span)
            answer: Answer | NoAnswer = NoAnswer("failed", SECRETS_LOST)
            if not target.secrets_lost:
                answer = await self._core.webhooks.deliver(call, self._core.clock.now())
            elapsed = time.monotonic() - began
            settlement = decide(
                answer,
                attempt=task.attempt,
                max_attempts=retry.max_attempts,
                policy=retry,
                fatal_statuses=target.fatal_statuses,
                now=self._core.clock.now(),
                jitter=random.random(),
            )
            if settlement.disable_handler:
                # in a transaction of its own, before the settle: nothing is claimed for it from here on
                tenant = held.policy.tenant
                await handler_service.disable_gone(self._core, tenant, target.id, "the handler answered 410 Gone")
            settlement, verdict = await self._end(held, settlement, answer, retry, span)
            outcome = settlement.outcome if verdict in ("applied", "repeat") else "stale"
            status = settlement.status
            self._report(held, settlement, verdict, elapsed)
        except asyncio.CancelledError:
            outcome = CUT.get(held.cut or "", outcome)
            raise
        finally:
            if outcome != "held":  # that attempt goes on, and is counted when its holder or the reap ends it
                self._core.metrics.attempt_ended(policy.tenant, policy.name, outcome, time.monotonic() - began)
            span.end(outcome, status)

    def _started(self, held: Held) -> AttemptSpan:
        """Count the start, and open the span that goes out with the call."""
        core, task, policy = self._core, held.task, held.policy
        now = core.clock.seconds()
        wait = max(0.0, now - task.run_at.timestamp())
        core.metrics.task_started(policy.tenant, policy.name, wait)
        core.stats.started(policy.id, wait)
        stored = None if task.traceparent is None else TraceContext.parse(task.traceparent, task.tracestate)
        age = now - task.created_at.timestamp()
        return core.tracing.attempt(policy.name, policy.tenant, task.task_id, task.number, stored, age)

    async def _settle(self, held: Held, outcome: Outcome) -> str:
        held.answered = True
        return await self._core.settling.submit(outcome)

    async def _end(
        self, held: Held, settlement: Settlement, answer: Answer | NoAnswer, retry: RetryPolicy, span: AttemptSpan
    ) -> tuple[Settlement, str]:
        """Write what the answer means; with follow-up work that may turn out to be something else."""
        task = held.task
        if settlement.followups and isinstance(answer, Answer):
            held.answered = True
            try:
                verdict = await self._follow(held, settlement, answer, span)
            except Refusal as refusal:
                code, error = followups.fault(refusal)
                settlement = decide_refused_followups(
                    answer,
                    error,
                    code=code,
                    attempt=task.attempt,
                    max_attempts=retry.max_attempts,
                    policy=retry,
                    now=self._core.clock.now(),
                    jitter=random.random(),
                )
            else:
                return settlement, verdict
        outcome = outcome_of(task.task_id, task.token, settlement, answer, span.trace_id)
        return settlement, await self._settle(held, outcome)

    async def _follow(self, held: Held, settlement: Settlement, answer: Answer, span: AttemptSpan) -> str:
        """Raises Refusal when nothing of it was written, or, with the database away for a lease's time, nothing is known.

        As any other outcome it is written again while the database is away: what had been committed answers `repeat`.
        """
        core, task, policy = self._core, held.task, held.policy
        page = split_page(answer.body, core.max_payload_bytes)
        outcome = outcome_of(task.task_id, task.token, settlement, answer, span.trace_id)
        caller = Caller(policy.tenant_id, policy.tenant, "use")
        given_up = time.monotonic() + self._lease_seconds
        while True:
            try:
                return await followups.settle(core, caller, outcome, page, held.lane, span.context)
            except Unavailable:
                if time.monotonic() > given_up:
                    raise
                await asyncio.sleep(RETRY_SECONDS)

    def _report(self, held: Held, settlement: Settlement, verdict: str, elapsed: float) -> None:
        if verdict in ("stale", "unknown"):
            self._core.metrics.leases_lost()
            events.emit(log, events.ATTEMPT_STALE, outcome=settlement.outcome, status=settlement.status, **_where(held))
        elif settlement.kind == "hold":
            self._core.signals.lease_ends(self._core.clock.seconds() + settlement.delay_seconds)
        elif settlement.kind == "succeeded":
            self._core.stats.ended(held.policy.id, "succeeded", elapsed)
            if held.task.batch_id is not None:
                self._core.signals.batch_moved()
        elif settlement.kind == "dead":
            self._core.stats.ended(held.policy.id, "dead", elapsed)
            if held.task.batch_id is not None:
                self._core.signals.batch_moved()
            events.emit(
                log,
                events.TASK_DEAD,
                reason=settlement.reason,
                handler=held.target.name,
                outcome=settlement.outcome,
                status=settlement.status,
                error=settlement.error,
                **_where(held),
            )
        else:
            self._core.signals.due_at(self._core.clock.seconds() + settlement.delay_seconds)
            if settlement.delay_seconds <= 0 and settlement.kind == "retry":
                self._core.signals.lane_ready(*held.lane)
            events.emit(
                log,
                events.ATTEMPT_FAILED,
                handler=held.target.name,
                outcome=settlement.outcome,
                status=settlement.status,
                error=settlement.error,
                retry_in_seconds=round(settlement.delay_seconds, 3),
                **_where(held),
            )

    async def _give_back(self, outcomes: list[Outcome]) -> None:
        await asyncio.gather(*(self._core.settling.submit(outcome) for outcome in outcomes), return_exceptions=True)

    # leases

    async def renew(self) -> float:
        """A loop of the engine: renews, in one statement, what has been held past a third of a lease, and cuts what is lost."""
        now = time.monotonic()
        third = self._lease_seconds / 3
        due = [h for h in self._held.values() if self._doubted or now - h.renewed >= third]
        self._doubted = False
        if due:
            try:
                kept = await tasks.renew(
                    self._core.db, [(h.task.task_id, h.task.token) for h in due], self._lease_seconds
                )
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
        """Leases may have been revoked without a word of it arriving: the next renewal asks about all of them."""
        self._doubted = True

    def _cut_overdue(self) -> None:
        now = time.monotonic()
        for held in list(self._held.values()):
            if held.lease_until <= now:
                self._cut(held, "lost")

    def revoke(self, task_id: str) -> None:
        """The task was cancelled: end its call now."""
        for held in list(self._held.values()):
            if held.task.task_id == task_id:
                self._cut(held, "revoked")

    def _cut(self, held: Held, why: str) -> None:
        if held.cut is None and held.runner is not None:
            held.cut = why
            held.runner.cancel()
            if why == "lost":
                self._core.metrics.leases_lost()
                late = round(max(0.0, time.monotonic() - held.lease_until), 3)
                events.emit(log, events.LEASE_LOST, late_seconds=late, reason="not renewed", **_where(held))

    # the end

    async def drain(self, grace_seconds: float, hurried: asyncio.Event) -> int:
        """Wait for the calls in flight up to the grace, or until `hurried`; cut what is left and give its tasks back.

        Answers how many were cut.

        An outcome on its way to the database is waited for: it must not be contradicted under the same token.
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
        await self._give_back([_abandoned(h) if h.max_attempts else _refund(h.task) for h in left])
        await asyncio.gather(*(h.runner for h in list(self._held.values()) if h.runner), return_exceptions=True)
        for task in self._background:
            task.cancel()
        return len(left)


def _refund(task: Claimed) -> Outcome:
    """Never sent: ready again, and the attempt does not count."""
    return Outcome(task.task_id, task.token, "refund", "released")


def _abandoned(held: Held) -> Outcome:
    """Sent, and cut by a drain whose grace was over: the handler may have done its work, so the attempt counts."""
    task, last = held.task, held.task.attempt >= held.max_attempts
    return Outcome(
        task.task_id,
        task.token,
        kind="dead" if last else "retry",
        outcome="failed",
        reason="attempts_exhausted" if last else None,
        message="the replica was stopped before the handler had answered",
    )


def _timeout(task: Claimed, policy: Policy, target: Target) -> float:
    return task.timeout_seconds or policy.timeout_seconds or target.timeout_seconds


def _call(core: Core, held: Held, span: AttemptSpan) -> Call:
    task, target = held.task, held.target
    return Call(
        tenant=held.policy.tenant,
        url=target.url,
        task_id=task.task_id,
        queue=held.policy.name,
        attempt=task.attempt,
        max_attempts=held.max_attempts,
        lease_token=task.token,
        task_url=f"{core.public_url}/tasks/{task.task_id}",
        timeout_seconds=_timeout(task, held.policy, target),
        payload=task.payload,
        secrets=_secrets(target, core.clock.now()),
        type=task.type,
        traceparent=span.context.traceparent if span.context else None,
        tracestate=span.context.tracestate if span.context else None,
        correlation_id=task.correlation_id,
        cursor=task.cursor,
        batch=task.batch_id,
        schedule=task.schedule,
        scheduled_for=task.scheduled_for,
        schedule_timezone=task.schedule_timezone,
        task_headers=task.headers,
        handler_headers=target.headers,
    )


def _secrets(target: Target, now: datetime) -> tuple[str, ...]:
    over = target.previous_until is not None and now >= target.previous_until
    return target.secrets[:1] if over else target.secrets


def _where(held: Held) -> dict[str, Any]:
    """The fields every log line about an attempt carries."""
    trace = held.task.traceparent
    return {
        "tenant": held.policy.tenant,
        "queue": held.policy.name,
        "task": held.task.task_id,
        "attempt": held.task.attempt,
        "trace_id": trace[3:35] if trace else None,
        "correlation_id": held.task.correlation_id,
    }
