"""What an answer means: the whole table of retries and dead letters, as one pure function.

Rows are read in this order (contract, section 5), and the first that matches decides:

1. no complete answer         as row 9
2. 2xx with `sluice-hold`     held: accepted, the lease lives that many seconds from now
3. 2xx with follow-up work    succeeded if its tasks are enqueued in the same transaction; too large: dead, followup_too_large
4. 2xx                        succeeded, the body is the result
5. 410                        the attempt is refunded, the handler disabled
6. `sluice-retry: no`         dead, stopped_by_handler
7. a status in fatal_statuses dead, fatal_status; so is what a bridge can never take
8. 429 or 503, guarded        pushed_back: the attempt is refunded, retry after max(backoff by consecutive push-backs, Retry-After
                              clamped), or dead after a day of it
9. anything else              retry after max(backoff, Retry-After clamped), or dead when attempts are exhausted

A handler with a breaker or an adaptive limit is guarded. The failures of its breaker's probe in rows 1 and 9 are refunded.
Whether the tasks of row 3 can be enqueued is known only later; if they cannot, decide_refused_followups() decides.

One answer for a group of tasks is shared out first: domain/grouped.py.
"""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Literal, NamedTuple

import msgspec

from app.domain.answers import MAX_FOLLOWUP_BYTES, Answer, NoAnswer, is_followups
from app.domain.backoff import RetryPolicy
from app.domain.breakers import PUSHING_BACK, call_of
from app.domain.options import PushedBack

EXCERPT_BYTES = 1024

MAX_ERROR = 2000
"""Longest stored error of refused follow-up work, in characters."""

MAX_LEASE_SECONDS = 43_200.0
"""How far in the future a lease may end, whether it is granted, renewed or held."""

PUSHED_BACK_FOR = timedelta(hours=24)
"""How long push-backs may follow one another before the task is dead."""

SettlementKind = Literal["succeeded", "retry", "dead", "refund", "hold"]
FollowupsFault = Literal["invalid", "too_large", "queue_full"]


class Standing(NamedTuple):
    """What else an answer's meaning depends on."""

    guarded: bool = False
    """The handler has a breaker or an adaptive limit."""
    probe: bool = False
    """The call is its breaker's probe."""
    pushed_back: PushedBack | None = None
    """The task's last push-backs; this one follows them if its attempt is still the same."""

    def is_free(self, answer: Answer | NoAnswer) -> bool:
        """Return whether this is a failure of the service that the probe found."""
        return self.probe and call_of(answer) in ("failed", "pushed_back")


PLAIN = Standing()


class Terms(NamedTuple):
    """What an outcome depends on beside the answer."""

    attempt: int
    """Counts from 1 and includes this one."""
    policy: RetryPolicy
    now: datetime
    jitter: float
    """A draw from [0, 1)."""
    fatal_statuses: frozenset[int] = frozenset()
    standing: Standing = PLAIN

    @property
    def last(self) -> bool:
        """Whether no attempt is left."""
        return self.attempt >= self.policy.max_attempts

    def backoff(self) -> float:
        """Return the seconds to wait as after a failed attempt."""
        return self.policy.backoff.delay_after(self.attempt, self.jitter)

    def asked(self, answer: Answer) -> float:
        """Return the seconds of an answer's Retry-After, clamped."""
        seconds = retry_after_seconds(answer.headers.get("retry-after"), self.now)
        return min(seconds, self.policy.retry_after_max_seconds)


class Settlement(msgspec.Struct, frozen=True):
    kind: SettlementKind
    outcome: str
    reason: str | None = None
    delay_seconds: float = 0.0
    """Until the next attempt; for a hold, how long the lease lasts."""
    status: int | None = None
    error: str | None = None
    excerpt: str | None = None
    result: bytes | None = None
    result_truncated: bool = False
    disable_handler: bool = False
    retry_after_seconds: float = 0.0
    """What the answer asked for, clamped."""
    followups: bool = False
    """Succeeded only together with the tasks that the answer names; the result comes from its document."""


def decide(answer: Answer | NoAnswer, terms: Terms) -> Settlement:
    """Return what an answer means."""
    if isinstance(answer, NoAnswer):
        error = _stored_text(answer.error)
        if terms.standing.is_free(answer):
            return Settlement("refund", answer.outcome, delay_seconds=terms.backoff(), error=error)
        if terms.last:
            return Settlement("dead", answer.outcome, "attempts_exhausted", error=error)
        return Settlement("retry", answer.outcome, delay_seconds=terms.backoff(), error=error)

    status = answer.status
    error = f"the handler answered {status}" if answer.error is None else _stored_text(answer.error)[:MAX_ERROR]
    if 200 <= status <= 299 and "sluice-hold" in answer.headers:
        seconds = hold_seconds(answer.headers["sluice-hold"])
        if seconds is not None:
            return Settlement("hold", "held", status=status, delay_seconds=seconds, excerpt=excerpt(answer.body))
        error += " with a sluice-hold that is not a positive number"
    elif is_followups(answer):
        return _decide_followups(answer)
    elif 200 <= status <= 299:
        return Settlement(
            "succeeded",
            "succeeded",
            status=status,
            excerpt=excerpt(answer.body),
            result=answer.body,
            result_truncated=answer.truncated,
        )
    return _decide_unsuccessful(answer, terms, error)


def _decide_unsuccessful(answer: Answer, terms: Terms, error: str) -> Settlement:
    """Read rows 5 to 9."""
    status, text = answer.status, excerpt(answer.body)
    if status == 410:
        return Settlement("refund", "failed", status=status, error=error, excerpt=text, disable_handler=True)
    if answer.headers.get("sluice-retry", "").strip().lower() == "no":
        error += " with sluice-retry: no"
        return Settlement("dead", "failed", "stopped_by_handler", status=status, error=error, excerpt=text)
    if answer.fatal:
        return Settlement("dead", "failed", "fatal_status", status=status, error=error, excerpt=text)
    if status in terms.fatal_statuses:
        error += ", a fatal status of its handler"
        return Settlement("dead", "failed", "fatal_status", status=status, error=error, excerpt=text)
    if terms.standing.guarded and status in PUSHING_BACK:
        return _pushed_back(answer, terms, error)
    return _retry_or_dead(answer, terms, error)


def _pushed_back(answer: Answer, terms: Terms, error: str) -> Settlement:
    status, text, asked = answer.status, excerpt(answer.body), terms.asked(answer)
    before = terms.standing.pushed_back
    if before is not None and before.attempt != terms.attempt:
        before = None
    if before is not None and terms.now - before.since >= PUSHED_BACK_FOR:
        return Settlement(
            "dead",
            "pushed_back",
            "pushed_back_too_long",
            status=status,
            error=error,
            excerpt=text,
            retry_after_seconds=asked,
        )
    delay = terms.policy.backoff.delay_after(1 if before is None else before.times + 1, terms.jitter)
    return Settlement(
        "refund",
        "pushed_back",
        delay_seconds=max(delay, asked),
        status=status,
        error=error,
        excerpt=text,
        retry_after_seconds=asked,
    )


def decide_refused_followups(answer: Answer, terms: Terms, error: str, code: FollowupsFault) -> Settlement:
    """Return what it means that none of an answer's follow-up work was enqueued.

    `invalid`: failed like any other. `too_large`: dead, because the same page would never fit. `queue_full`: backpressure, so the
    attempt does not count, and the task waits as after a first failure.
    """
    error = _stored_text(error)[:MAX_ERROR]
    if code == "too_large":
        return _too_large(answer, error)
    if code == "queue_full":
        return Settlement(
            "refund",
            "failed",
            delay_seconds=terms.policy.backoff.delay_after(1, terms.jitter),
            status=answer.status,
            error=error,
            excerpt=excerpt(answer.body),
        )
    return _retry_or_dead(answer, terms, error)


def decide_refused_document(answer: Answer, terms: Terms, fault: str) -> Settlement:
    """Return what a 2xx means for a task of a group if its document is not valid (domain/grouped.py)."""
    error = _stored_text(f"the handler answered {answer.status}, but {fault}")[:MAX_ERROR]
    return _decide_unsuccessful(answer, terms, error)


def _decide_followups(answer: Answer) -> Settlement:
    if answer.truncated or len(answer.body) > MAX_FOLLOWUP_BYTES:
        return _too_large(answer, f"the follow-up work has more than {MAX_FOLLOWUP_BYTES} bytes")
    return Settlement("succeeded", "succeeded", status=answer.status, excerpt=excerpt(answer.body), followups=True)


def _too_large(answer: Answer, error: str) -> Settlement:
    return Settlement(
        "dead", "failed", "followup_too_large", status=answer.status, error=error, excerpt=excerpt(answer.body)
    )


def _retry_or_dead(answer: Answer, terms: Terms, error: str) -> Settlement:
    status, text, asked = answer.status, excerpt(answer.body), terms.asked(answer)
    free = terms.standing.is_free(answer)
    if terms.last and not free:
        return Settlement(
            "dead", "failed", "attempts_exhausted", status=status, error=error, excerpt=text, retry_after_seconds=asked
        )
    return Settlement(
        "refund" if free else "retry",
        "failed",
        delay_seconds=max(terms.backoff(), asked),
        status=status,
        error=error,
        excerpt=text,
        retry_after_seconds=asked,
    )


def decide_failure(
    terms: Terms,
    error: str,
    *,
    retryable: bool,
    retry_after_seconds: float,
    stopped: str = "stopped_by_worker",
    status: int | None = None,
) -> Settlement:
    """Return what a failure means that a worker has reported, or that a handler's answer names for one task of a group.

    `stopped`: the reason of a task that is not to be retried.
    """
    text = _stored_text(error)
    if not retryable:
        return Settlement("dead", "failed", stopped, status=status, error=text)
    if terms.last:
        return Settlement("dead", "failed", "attempts_exhausted", status=status, error=text)
    delay = max(terms.backoff(), min(retry_after_seconds, terms.policy.retry_after_max_seconds))
    return Settlement("retry", "failed", delay_seconds=delay, status=status, error=text)


def hold_seconds(value: str) -> float | None:
    """Return the seconds of a `sluice-hold`, clamped; None if it is not a positive number."""
    try:
        seconds = float(value)
    except ValueError:
        return None
    return min(seconds, MAX_LEASE_SECONDS) if seconds > 0 else None


def excerpt(body: bytes) -> str | None:
    """Return the first KiB as text that Postgres can store; None without a body."""
    return _stored_text(body[:EXCERPT_BYTES].decode("utf-8", "replace")) if body else None


def _stored_text(text: str) -> str:
    return text.replace("\x00", "")


def retry_after_seconds(value: str | None, now: datetime) -> float:
    """Return the seconds of a `Retry-After` (a number or an HTTP date); 0 if absent, unreadable or in the past."""
    if value is None:
        return 0.0
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:18]) if len(value) <= 18 else 1e18
    try:
        at = parsedate_to_datetime(value)
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
        return max(0.0, (at - now).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
