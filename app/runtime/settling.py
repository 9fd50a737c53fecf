"""Settling: where an attempt's outcome is committed, for the dispatcher and the pull API alike.

Outcomes are written in groups, by compare-and-set on the lease token. A group whose answer was lost is simply written again:
what was already applied answers `repeat`, and nothing is written twice. While the database is unavailable the group waits, as
long as its leases can still be valid; after that the reaper decides.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from app.domain.answers import Answer, NoAnswer
from app.domain.ijson import parse_ijson
from app.domain.outcomes import Settlement
from app.runtime.claiming import Claiming
from app.runtime.signals import Rider, Signals
from app.runtime.waiters import TaskWaiters
from app.store import partitions, tasks
from app.store.callbacks import Told
from app.store.db import Database
from app.store.failures import Unavailable
from app.store.tasks import AttemptEnd

RETRY_SECONDS = 0.5
GIVE_UP_SECONDS = 600.0


def attempt_end(
    task_id: str, token: str, settlement: Settlement, answer: Answer | NoAnswer, trace_id: str | None
) -> AttemptEnd:
    result_format = None
    if settlement.kind == "succeeded" and isinstance(answer, Answer):
        result_format = format_of(answer)
    return AttemptEnd(
        task_id=task_id,
        token=token,
        kind=settlement.kind,
        outcome=settlement.outcome,
        reason=settlement.reason,
        delay_seconds=settlement.delay_seconds,
        status=settlement.status,
        message=settlement.error,
        excerpt=settlement.excerpt,
        result=settlement.result,
        result_format=result_format,
        result_truncated=settlement.result_truncated,
        trace_id=trace_id,
    )


def format_of(answer: Answer) -> str | None:
    """Return how a result is shown: json, text or base64; None for an empty body. A truncated JSON body is text."""
    if not answer.body:
        return None
    media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not answer.truncated and (media_type == "application/json" or media_type.endswith("+json")):
        try:
            parse_ijson(answer.body)
        except Exception:  # noqa: S110  # whatever is wrong with it, it is not JSON
            pass
        else:
            return "json"
    try:
        answer.body.decode("utf-8")
    except UnicodeDecodeError:
        if answer.truncated and _cut_character(answer.body):
            return "text"
        return "base64"
    return "text"


def _cut_character(body: bytes) -> bool:
    """Return whether only the last character is invalid UTF-8, because truncation split it."""
    return any(_is_text(body[:-cut]) for cut in (1, 2, 3))


def _is_text(body: bytes) -> bool:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def writer(db: Database, waiters: TaskWaiters, claiming: Claiming, signals: Signals, called_back: Told) -> Any:
    """Return the write function of the settling group writer: verdicts applied, repeat, stale or unknown, in the items' order."""

    async def write(outcomes: Sequence[AttemptEnd]) -> list[str]:
        rider = signals.rider(outcomes)
        verdicts = None if rider is None else await _write_with(rider, claiming, outcomes, called_back)
        if verdicts is None:
            verdicts = await _write_alone(db, outcomes, called_back)
        if waiters.watched:
            waiters.ended(outcome.task_id for outcome in outcomes if outcome.kind in ("succeeded", "dead"))
        return [verdicts[outcome.token] for outcome in outcomes]

    return write


async def _write_with(
    rider: Rider, claiming: Claiming, outcomes: Sequence[AttemptEnd], told: Told
) -> dict[str, str] | None:
    """Write outcomes and the claim that rides along; return None on any error, after which both are tried apart."""
    claims = None
    try:
        verdicts, claims = await claiming.settle_and_claim(outcomes, rider.wants, rider.lease_seconds, told)
    except Exception:
        # logged, and whatever was claimed is being released
        return None
    finally:
        rider.answered(claims)
    return verdicts


async def _write_alone(db: Database, outcomes: Sequence[AttemptEnd], told: Told) -> dict[str, str]:
    given_up = asyncio.get_running_loop().time() + GIVE_UP_SECONDS
    while True:
        try:
            return await partitions.with_days(db, partial(tasks.settle, db, outcomes, told=told))
        except Unavailable:
            if asyncio.get_running_loop().time() > given_up:
                raise
            await asyncio.sleep(RETRY_SECONDS)
