"""What an answer means: the whole table of retries and dead letters, as one pure function.

Rows are read in this order (contract, section 5), the first that fits decides:

1. no full answer             as row 6
2. 2xx                        succeeded, the body is the result
3. 410                        the attempt is refunded, the handler disabled
4. `sluice-retry: no`         dead, stopped_by_handler
5. a status in fatal_statuses dead, fatal_status
6. all else                   retry after max(backoff, Retry-After clamped), or dead when attempts are exhausted
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

from app.domain.backoff import Backoff as Backoff
from app.domain.backoff import RetryPolicy as RetryPolicy

EXCERPT_BYTES = 1024

NoAnswerOutcome = Literal["timeout", "unreachable", "too_large", "egress_denied"]
SettlementKind = Literal["succeeded", "retry", "dead", "refund"]


@dataclass(frozen=True, slots=True)
class Answer:
    """A full answer of a handler: the body has ended, or as much of it as is kept has come (`truncated`)."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class NoAnswer:
    outcome: NoAnswerOutcome
    error: str
    permanent: bool = False
    """Known to fail again. The contract retries it all the same: a policy or a name may be mended meanwhile."""


@dataclass(frozen=True, slots=True)
class Settlement:
    kind: SettlementKind
    outcome: str
    reason: str | None = None
    delay_seconds: float = 0.0
    status: int | None = None
    error: str | None = None
    excerpt: str | None = None
    result: bytes | None = None
    result_truncated: bool = False
    disable_handler: bool = False


def decide(
    answer: Answer | NoAnswer,
    *,
    attempt: int,
    max_attempts: int,
    policy: RetryPolicy,
    fatal_statuses: frozenset[int],
    now: datetime,
    jitter: float,
) -> Settlement:
    """`attempt` counts from 1 and includes the one that got this answer; `jitter` is a draw from [0, 1)."""
    if isinstance(answer, NoAnswer):
        error = _stored_text(answer.error)
        if attempt >= max_attempts:
            return Settlement("dead", answer.outcome, "attempts_exhausted", error=error)
        delay = policy.backoff.delay_after(attempt, jitter)
        return Settlement("retry", answer.outcome, delay_seconds=delay, error=error)

    status = answer.status
    if 200 <= status <= 299:
        return Settlement(
            "succeeded",
            "succeeded",
            status=status,
            excerpt=excerpt(answer.body),
            result=answer.body,
            result_truncated=answer.truncated,
        )
    error = f"the handler answered {status}"
    text = excerpt(answer.body)
    if status == 410:
        return Settlement("refund", "failed", status=status, error=error, excerpt=text, disable_handler=True)
    if answer.headers.get("sluice-retry", "").strip().lower() == "no":
        error += " with sluice-retry: no"
        return Settlement("dead", "failed", "stopped_by_handler", status=status, error=error, excerpt=text)
    if status in fatal_statuses:
        error += ", a fatal status of its handler"
        return Settlement("dead", "failed", "fatal_status", status=status, error=error, excerpt=text)
    if attempt >= max_attempts:
        return Settlement("dead", "failed", "attempts_exhausted", status=status, error=error, excerpt=text)
    asked = retry_after_seconds(answer.headers.get("retry-after"), now)
    delay = max(policy.backoff.delay_after(attempt, jitter), min(asked, policy.retry_after_max_seconds))
    return Settlement("retry", "failed", delay_seconds=delay, status=status, error=error, excerpt=text)


def excerpt(body: bytes) -> str | None:
    """The first KiB as text that Postgres can store; None when there is no body."""
    return _stored_text(body[:EXCERPT_BYTES].decode("utf-8", "replace")) if body else None


def _stored_text(text: str) -> str:
    return text.replace("\x00", "")


def retry_after_seconds(value: str | None, now: datetime) -> float:
    """A `Retry-After` in seconds or as an HTTP date; 0 for none, for garbage and for a date gone by."""
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
