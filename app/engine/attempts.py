"""An attempt's lifecycle: send, decide, settle, report.

Two things end it early without writing an outcome: its lease was revoked (the task was cancelled), or lost (a renewal was
refused, or did not succeed before the lease expired by this replica's clock). Whatever the handler still does, only the next
holder's token can settle.
"""

import asyncio
import random
import time
from types import TracebackType

from app.delivery.kinds import Call
from app.domain.answers import Answer, NoAnswer
from app.domain.backoff import RetryPolicy
from app.domain.callers import Caller
from app.domain.errors import Refusal
from app.domain.followups import split_page
from app.domain.handlers import SECRETS_LOST
from app.domain.outcomes import Settlement, decide, decide_refused_followups
from app.domain.retries import effective_retry
from app.engine.held import Held
from app.runtime import followups
from app.runtime.core import Core
from app.runtime.settling import RETRY_SECONDS, attempt_end
from app.store import handlers
from app.store.failures import Unavailable
from app.store.tasks import AttemptEnd
from app.telemetry import events
from app.telemetry.logs import get_logger
from app.telemetry.tracing import AttemptSpan, TraceContext

OUTCOME_OF_CUT = {"revoked": "cancelled", "drained": "failed"}
"""The outcome of an attempt that was cut short, by cause; otherwise its lease was lost."""

log = get_logger(__name__)


class _Record:
    """Counts an attempt from start to end, however it ends, and holds the span that is sent with the call."""

    __slots__ = ("_began", "_core", "_held", "outcome", "span", "status")

    def __init__(self, core: Core, held: Held) -> None:
        task, policy = held.task, held.policy
        now = core.clock.seconds()
        wait = max(0.0, now - task.run_at.timestamp())
        core.metrics.task_started(policy.tenant, policy.name, wait)
        core.stats.started(policy.id, wait)
        traceparent, tracestate = task.options.traceparent, task.options.tracestate
        stored = None if traceparent is None else TraceContext.parse(traceparent, tracestate)
        age = now - task.created_at.timestamp()
        self.span: AttemptSpan = core.tracing.attempt(
            policy.name, policy.tenant, task.task_id, task.number, stored, age
        )
        self.outcome = "lease_expired"
        self.status: int | None = None
        self._core, self._held, self._began = core, held, time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self._began

    def settled(self, settlement: Settlement, verdict: str) -> None:
        self.outcome = settlement.outcome if verdict in ("applied", "repeat") else "stale"
        self.status = settlement.status

    def __enter__(self) -> "_Record":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if isinstance(error, asyncio.CancelledError):
            self.outcome = OUTCOME_OF_CUT.get(self._held.cut or "", self.outcome)
        if self.outcome != "held":  # a held attempt continues, and is counted when its holder or the reaper ends it
            policy = self._held.policy
            self._core.metrics.attempt_ended(policy.tenant, policy.name, self.outcome, self.seconds())
        self.span.end(self.outcome, self.status)


class Attempts:
    def __init__(self, core: Core, *, lease_seconds: float) -> None:
        self._core = core
        self._lease_seconds = lease_seconds

    async def run(self, held: Held) -> None:
        """Run one attempt, from the claim's answer to the settled outcome. Cancelling it aborts the call."""
        if held.too_late:
            await self._settle(held, held.refund())
            return
        retry = effective_retry(held.policy.retry, held.task.options.retry)
        held.max_attempts = retry.max_attempts
        with _Record(self._core, held) as record:
            answer = await self._send(held, record.span)
            seconds = record.seconds()
            settlement = self._decide(held, answer, retry)
            if settlement.disable_handler:
                await self._disable_handler(held)
            settlement, verdict = await self._write(held, settlement, answer, retry, record.span)
            record.settled(settlement, verdict)
            self._report(held, settlement, verdict, seconds)

    async def _send(self, held: Held, span: AttemptSpan) -> Answer | NoAnswer:
        if held.target.secrets_lost:
            return NoAnswer("failed", SECRETS_LOST)
        return await self._core.webhooks.deliver(self._call(held, span), self._core.clock.now())

    def _decide(self, held: Held, answer: Answer | NoAnswer, retry: RetryPolicy) -> Settlement:
        return decide(
            answer,
            attempt=held.task.attempt,
            max_attempts=retry.max_attempts,
            policy=retry,
            fatal_statuses=held.target.fatal_statuses,
            now=self._core.clock.now(),
            jitter=random.random(),
        )

    async def _disable_handler(self, held: Held) -> None:
        """Disable the handler in a transaction of its own, before the settle, so that nothing more is claimed for it."""
        reason = "the handler answered 410 Gone"
        name = await handlers.disable_gone(self._core.db, held.target.id, reason)
        if name is not None:
            events.emit(log, events.HANDLER_DISABLED, tenant=held.policy.tenant, handler=name, reason=reason)

    async def _write(
        self, held: Held, settlement: Settlement, answer: Answer | NoAnswer, retry: RetryPolicy, span: AttemptSpan
    ) -> tuple[Settlement, str]:
        """Write what the answer means. Refused follow-up work changes that meaning."""
        if settlement.followups and isinstance(answer, Answer):
            held.answered = True
            try:
                return settlement, await self._follow(held, settlement, answer, span)
            except Refusal as refusal:
                settlement = self._decide_refused(held, answer, refusal, retry)
        outcome = attempt_end(held.task.task_id, held.task.token, settlement, answer, span.trace_id)
        return settlement, await self._settle(held, outcome)

    def _decide_refused(self, held: Held, answer: Answer, refusal: Refusal, retry: RetryPolicy) -> Settlement:
        code, error = followups.fault(refusal)
        return decide_refused_followups(
            answer,
            error,
            code=code,
            attempt=held.task.attempt,
            max_attempts=retry.max_attempts,
            policy=retry,
            now=self._core.clock.now(),
            jitter=random.random(),
        )

    async def _settle(self, held: Held, outcome: AttemptEnd) -> str:
        held.answered = True
        return await self._core.settling.submit(outcome)

    async def _follow(self, held: Held, settlement: Settlement, answer: Answer, span: AttemptSpan) -> str:
        """Write follow-up work. Raises Refusal if nothing was written, or if the database was unavailable for a whole lease.

        Like any other outcome, it is written again while the database is unavailable: what was already committed answers `repeat`.
        """
        core, task, policy = self._core, held.task, held.policy
        page = split_page(answer.body, core.max_payload_bytes)
        outcome = attempt_end(task.task_id, task.token, settlement, answer, span.trace_id)
        caller = Caller(policy.tenant_id, policy.tenant, "use")
        given_up = time.monotonic() + self._lease_seconds
        while True:
            try:
                return await followups.settle(core, caller, outcome, page, held.lane, span.context)
            except Unavailable:
                if time.monotonic() > given_up:
                    raise
                await asyncio.sleep(RETRY_SECONDS)

    def _report(self, held: Held, settlement: Settlement, verdict: str, seconds: float) -> None:
        """Wake whoever waits for the outcome, count it, and log what operators need."""
        core = self._core
        if verdict in ("stale", "unknown"):
            core.metrics.leases_lost()
            events.emit(
                log,
                events.ATTEMPT_STALE,
                outcome=settlement.outcome,
                status=settlement.status,
                **held.log_fields(),
            )
        elif settlement.kind == "hold":
            core.signals.lease_ends(core.clock.seconds() + settlement.delay_seconds)
        elif settlement.kind in ("succeeded", "dead"):
            core.stats.ended(held.policy.id, settlement.kind, seconds)
            if held.task.batch_id is not None:
                core.signals.batch_changed()
            if settlement.kind == "dead":
                events.emit(log, events.TASK_DEAD, reason=settlement.reason, **_failure(held, settlement))
        else:
            core.signals.task_due_at(core.clock.seconds() + settlement.delay_seconds)
            if settlement.delay_seconds <= 0 and settlement.kind == "retry":
                core.signals.lane_ready(*held.lane)
            delay = round(settlement.delay_seconds, 3)
            events.emit(log, events.ATTEMPT_FAILED, retry_in_seconds=delay, **_failure(held, settlement))

    def _call(self, held: Held, span: AttemptSpan) -> Call:
        core, task, target = self._core, held.task, held.target
        now = core.clock.now()
        rotated = target.previous_until is not None and now >= target.previous_until
        return Call(
            tenant=held.policy.tenant,
            url=target.url,
            task_id=task.task_id,
            queue=held.policy.name,
            attempt=task.attempt,
            max_attempts=held.max_attempts,
            lease_token=task.token,
            task_url=f"{core.public_url}/tasks/{task.task_id}",
            timeout_seconds=held.timeout_seconds,
            payload=task.payload,
            secrets=target.secrets[:1] if rotated else target.secrets,
            traceparent=span.context.traceparent if span.context else None,
            tracestate=span.context.tracestate if span.context else None,
            options=task.options,
            batch=task.batch_id,
            handler_headers=target.headers,
        )


def _failure(held: Held, settlement: Settlement) -> dict[str, object]:
    return {
        "handler": held.target.name,
        "outcome": settlement.outcome,
        "status": settlement.status,
        "error": settlement.error,
        **held.log_fields(),
    }
