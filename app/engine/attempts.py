"""An attempt's lifecycle: send, decide, settle, report.

Two things end it early without writing an outcome: its lease was revoked (the task was cancelled), or lost (a renewal was
refused, or did not succeed before the lease expired by this replica's clock). Whatever the handler still does, only the next
holder's token can settle.

An attempt is an object that the handler's answer calls back, and then the database's verdict on its outcome. A coroutine and a
task for each would cost as much as all the rest of it. Only an answer that takes more than one write gets a task: follow-up work,
and a handler that is gone.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Protocol, TypeVar

import msgspec

from app.delivery.kinds import Call, Sending
from app.domain.answers import Answer, NoAnswer
from app.domain.breakers import CallKind, call_of
from app.domain.callers import Caller
from app.domain.errors import Refusal
from app.domain.followups import split_page
from app.domain.handlers import SECRETS_LOST
from app.domain.outcomes import Settlement, Standing, Terms, decide, decide_refused_followups, excerpt
from app.domain.retries import effective_retry
from app.engine.held import Held
from app.runtime import breakers, followups
from app.runtime.core import Core
from app.runtime.settling import RETRY_SECONDS, attempt_end
from app.store import breakers as breaker_rows
from app.store import handlers
from app.store.contents import CONTENT_LOST, open_payload, seal_outcome
from app.store.failures import Unavailable
from app.store.vault import VaultError
from app.telemetry import events
from app.telemetry.logs import get_logger
from app.telemetry.tracing import AttemptSpan, TraceContext

OUTCOME_OF_CUT = {"revoked": "cancelled", "drained": "failed"}
"""The outcome of an attempt that was cut short, by cause; otherwise its lease was lost."""

REFUSED_UNSAID = "the follow-up work was refused; the excerpt of the attempt says why"
"""Of a task whose content is encrypted."""

T = TypeVar("T")
Decide = Callable[[Any, Terms], Settlement]
"""decide() of domain/outcomes.py, or what reads answers otherwise."""

log = get_logger(__name__)


class SharedCall(Protocol):
    """A call that is sent for several attempts (engine/grouped.py)."""

    def join(self, attempt: "Attempt", call: Call) -> Sending:
        """Take an attempt in; return what ends its part in the call."""


class Attempt:
    """One attempt, from the claim's answer to the settled outcome. `ended` is called once, however it ends."""

    __slots__ = (
        "_began",
        "_core",
        "_ended",
        "_lease_seconds",
        "_over",
        "_retry",
        "_seconds",
        "_sending",
        "_settlement",
        "_span",
        "_writing",
        "held",
    )

    def __init__(self, core: Core, held: Held, lease_seconds: float, ended: Callable[["Attempt"], None]) -> None:
        self.held = held
        self._core = core
        self._lease_seconds = lease_seconds
        self._ended = ended
        self._sending: Sending | None = None
        self._writing: asyncio.Task[None] | None = None
        self._over = False

    # the way of an attempt, step by step

    def start(self, now: datetime, shared: SharedCall | None = None) -> None:
        """Send the call, or join the shared one; give the task back if that would come too late. `now` is the database's time."""
        core, held = self._core, self.held
        try:
            if held.too_late:
                held.answered = True
                core.settling.post(held.refund(), self._refunded)
                return
            self._began = time.monotonic()
            self._span = self._count_start(now.timestamp())
            self._retry = effective_retry(held.policy.retry, held.task.options.retry)
            held.max_attempts = self._retry.max_attempts
            if held.target.secrets_lost:
                self._answered(NoAnswer("failed", SECRETS_LOST))
            elif (call := self._call(now)) is None:
                self._answered(NoAnswer("failed", CONTENT_LOST))
            elif shared is None:
                self._sending = core.delivery.send(call, now, self._answered)
            else:
                self._sending = shared.join(self, call)
        except Exception as error:
            self._fail(error)

    def _answered(self, answer: Answer | NoAnswer | Exception) -> None:
        """Decide what the answer to its own call means, and write it."""
        try:
            self._sending = None
            if isinstance(answer, Exception):
                raise answer
            self._seconds = time.monotonic() - self._began
            settlement, call = self._decide(answer, decide), self._count_call(answer)
            probed = self.held.probe and call is not None
            if settlement.followups or settlement.disable_handler or probed or self._parks(settlement):
                self._writing = asyncio.get_running_loop().create_task(self._write_more(settlement, answer))
            else:
                self._settle(settlement, answer)
        except Exception as error:
            self._fail(error)

    async def tell_handler(self, answer: Answer | NoAnswer, decide: Decide) -> None:
        """Count the answer to a shared call and write what it means for the handler, once for all attempts, before each is told."""
        self._seconds = time.monotonic() - self._began
        self._count_call(answer)
        settlement = self._decide(answer, decide)
        await self._despite_outages(lambda: self._tell_handler(settlement, answer))

    def told(self, answer: Answer | NoAnswer | Exception, decide: Decide) -> None:
        """Decide what the answer to a shared call means for this attempt, and write it."""
        try:
            self._sending = None
            if isinstance(answer, Exception):
                raise answer
            self._seconds = time.monotonic() - self._began
            self._settle(self._decide(answer, decide), answer)
        except Exception as error:
            self._fail(error)

    def _settle(self, settlement: Settlement, answer: Answer | NoAnswer) -> None:
        task = self.held.task
        self._settlement, self.held.answered = settlement, True
        outcome = attempt_end(task.task_id, task.token, settlement, answer, self._span.trace_id)
        if task.options.sealed:
            outcome = seal_outcome(self._core.vault, self.held.policy.tenant_id, task.options, outcome)
        self._core.settling.post(outcome, self._settled)

    def _settled(self, verdict: str | BaseException) -> None:
        """Report what became of the outcome."""
        try:
            if self._over:  # cut meanwhile
                return
            if isinstance(verdict, BaseException):
                raise verdict
            self._report(self._settlement, verdict)
            outcome = self._settlement.outcome if verdict in ("applied", "repeat") else "stale"
            self._close(outcome, self._settlement.status)
        except Exception as error:
            self._fail(error)

    def _refunded(self, verdict: str | BaseException) -> None:
        if isinstance(verdict, BaseException):
            self._fail(verdict)
        elif not self._over:
            self._close("released", None)

    # how it ends

    def cut(self, why: str) -> None:
        """End the attempt here and now: revoked, lost or drained. An outcome on its way to the database is still written."""
        self.held.cut = why
        if self._sending is not None:
            self._sending.cancel()
        if self._writing is not None:
            self._writing.cancel()
        self._close(OUTCOME_OF_CUT.get(why, "lease_expired"), None)

    def _fail(self, error: BaseException) -> None:
        """End an attempt that met a fault of ours; its lease ends by itself."""
        events.emit(log, events.CALL_FAILED, exc_info=error, **self.held.log_fields())
        if not self._over:
            self._close("lease_expired", None)

    def _close(self, outcome: str, status: int | None) -> None:
        self._over = True
        if self.held.max_attempts:  # otherwise nothing was sent
            if outcome != "held":  # a held attempt continues, and is counted when its holder or the reaper ends it
                policy = self.held.policy
                self._core.metrics.attempt_ended(policy.tenant, policy.name, outcome, time.monotonic() - self._began)
            self._span.end(outcome, status)
        self._ended(self)

    # what the steps need

    def _count_start(self, now: float) -> AttemptSpan:
        """Count the start, and return the span that is sent with the call."""
        core, task, policy = self._core, self.held.task, self.held.policy
        wait = max(0.0, now - task.run_at.timestamp())
        core.metrics.task_started(policy.tenant, policy.name, wait)
        core.stats.started(policy.id, wait)
        if policy.limits or self.held.target.limits or task.options.limits:
            own = (use.name for use in task.options.limits)
            core.metrics.limits_taken(policy.tenant, (*own, *policy.limits, *self.held.target.limits))
        traceparent, tracestate = task.options.traceparent, task.options.tracestate
        stored = None if traceparent is None else TraceContext.parse(traceparent, tracestate)
        age = now - task.created_at.timestamp()
        return core.tracing.attempt(policy.name, policy.tenant, task.task_id, task.number, stored, age)

    def _decide(self, answer: Answer | NoAnswer, decide: Decide) -> Settlement:
        return decide(answer, self._terms())

    def _terms(self) -> Terms:
        target, task = self.held.target, self.held.task
        standing = Standing(target.guarded, self.held.probe, task.options.pushed_back)
        now, jitter = self._core.clock.now(), random.random()
        return Terms(task.attempt, self._retry, now, jitter, target.fatal_statuses, standing)

    def _count_call(self, answer: Answer | NoAnswer) -> CallKind | None:
        """Count what the call says about a guarded handler, and return it."""
        held = self.held
        if held.period is None:
            return None
        call = call_of(answer)
        if call is not None:
            self._core.calls.ended(held.target.id, held.period, call, self._seconds)
        return call

    def _parks(self, settlement: Settlement) -> bool:
        return self.held.target.park != "task" and settlement.retry_after_seconds > 0

    async def _write_more(self, settlement: Settlement, answer: Answer | NoAnswer) -> None:
        """Write an outcome that takes more than a place in a group. Refused follow-up work changes its meaning.

        What it means for the handler is written in transactions of their own, before the settle: a slot that comes free must not
        let in what the answer forbids.
        """
        try:
            await self._despite_outages(lambda: self._tell_handler(settlement, answer))
            if settlement.followups and isinstance(answer, Answer):
                self.held.answered = True
                try:
                    self._settlement = settlement
                    verdict = await self._follow(settlement, answer)
                except Refusal as refusal:
                    settlement = self._decide_refused(answer, refusal)
                else:
                    self._settled(verdict)
                    return
            self._settle(settlement, answer)
        except Exception as error:
            self._fail(error)

    async def _tell_handler(self, settlement: Settlement, answer: Answer | NoAnswer) -> None:
        """Park the handler or disable it, and judge the probe of its breaker. It may be repeated."""
        core, held = self._core, self.held
        if settlement.disable_handler:
            await self._disable_handler()
        if self._parks(settlement):
            await self._park(settlement.retry_after_seconds)
        if held.probe and held.period is not None and (call := call_of(answer)) is not None:
            await breakers.probed(core, held.target.id, held.period, ok=call == "ok")

    async def _park(self, seconds: float) -> None:
        """Park the handler, or the task's key in its queue."""
        core, held = self._core, self.held
        policy, target, key = held.policy, held.target, held.task.options.key
        if target.park == "handler":
            if await handlers.park(core.db, target.id, seconds) is not None:
                events.emit(log, events.HANDLER_PARKED, tenant=policy.tenant, handler=target.name, seconds=seconds)
        elif key is not None and await breaker_rows.park_key(core.db, policy.tenant_id, policy.id, key, seconds):
            events.emit(log, events.KEY_PARKED, handler=target.name, seconds=seconds, **held.log_fields())

    async def _disable_handler(self) -> None:
        reason = "the handler answered 410 Gone"
        held = self.held
        name = await handlers.disable_gone(self._core.db, held.target.id, reason, self._core.replica.name)
        if name is not None:
            events.emit(log, events.HANDLER_DISABLED, tenant=held.policy.tenant, handler=name, reason=reason)

    def _decide_refused(self, answer: Answer, refusal: Refusal) -> Settlement:
        code, error = followups.fault(refusal)
        if not self.held.task.options.sealed:
            return decide_refused_followups(answer, self._terms(), error, code)
        # the pointers and what is wrong there may quote the document, and errors are not encrypted
        settlement = decide_refused_followups(answer, self._terms(), REFUSED_UNSAID, code)
        return msgspec.structs.replace(settlement, excerpt=excerpt(error.encode()))

    async def _follow(self, settlement: Settlement, answer: Answer) -> str:
        """Write follow-up work. Raises Refusal if nothing was written, or if the database was unavailable for a whole lease.

        Like any other outcome, it is written again while the database is unavailable: what was already committed answers `repeat`.
        """
        core, held = self._core, self.held
        task, policy = held.task, held.policy
        page = split_page(answer.body, core.max_payload_bytes)
        outcome = attempt_end(task.task_id, task.token, settlement, answer, self._span.trace_id)
        caller = Caller(policy.tenant_id, policy.tenant, "use")
        return await self._despite_outages(
            lambda: followups.settle(core, caller, outcome, page, held.lane, task.options, self._span.context)
        )

    async def _despite_outages(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write, and again while the database is unavailable, for a whole lease at most. Raises what `write` raises."""
        given_up = time.monotonic() + self._lease_seconds
        while True:
            try:
                return await write()
            except Unavailable:
                if time.monotonic() > given_up:
                    raise
                await asyncio.sleep(RETRY_SECONDS)

    def _report(self, settlement: Settlement, verdict: str) -> None:
        """Wake whoever waits for the outcome, count it, and log what operators need."""
        core, held = self._core, self.held
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
            core.stats.ended(held.policy.id, settlement.kind, self._seconds, settlement.reason)
            if held.task.batch_id is not None:
                core.signals.batch_changed()
            if settlement.kind == "dead":
                events.emit(log, events.TASK_DEAD, reason=settlement.reason, **_failure(held, settlement))
        else:
            if settlement.kind == "retry":
                core.stats.retried(held.policy.id)
            core.signals.task_due_at(core.clock.seconds() + settlement.delay_seconds)
            if settlement.delay_seconds <= 0 and not settlement.disable_handler:
                core.signals.lane_ready(*held.lane)
            delay = round(settlement.delay_seconds, 3)
            events.emit(log, events.ATTEMPT_FAILED, retry_in_seconds=delay, **_failure(held, settlement))

    def _call(self, now: datetime) -> Call | None:
        """Return what is sent; None if the payload cannot be decrypted."""
        core, held, span = self._core, self.held, self._span
        task, target = held.task, held.target
        try:
            payload = open_payload(core.vault, held.policy.tenant_id, task.task_id, task.options, task.payload)
        except VaultError:
            return None
        rotated = target.previous_until is not None and now >= target.previous_until
        return Call(
            tenant=held.policy.tenant,
            url=target.url,
            kind=target.kind,
            address=target.address,
            targets=target.targets,
            task_id=task.task_id,
            queue=held.policy.name,
            attempt=task.attempt,
            max_attempts=held.max_attempts,
            lease_token=task.token,
            task_url=f"{core.public_url}/tasks/{task.task_id}",
            timeout_seconds=held.timeout_seconds,
            payload=payload,
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
