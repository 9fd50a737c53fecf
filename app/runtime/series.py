"""Series by minute, of one queue or of all queues that a caller sees."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from app.domain.histograms import percentile, summed
from app.domain.instants import format_instant
from app.domain.overviews import Point, Series
from app.runtime.pieces import in_pieces
from app.store import stats
from app.store.db import Reader
from app.store.stats import SeriesRow

MAX_MINUTES = 1440
SUMMED_BY_SECOND = 20
"""From then on in a minute, the one before it has been summed (app/engine/minutes.py)."""
SAMPLED = ""
"""Stands for the queue in rows that say that a minute was sampled."""


def _minutes(now: datetime, minutes: int) -> list[datetime]:
    last = now.replace(second=0, microsecond=0)
    return [last - timedelta(minutes=before) for before in range(minutes - 1, -1, -1)]


async def of_queue(reads: Reader, now: datetime, queue_id: int, name: str, minutes: int) -> Series:
    """Return the last `minutes` of a queue, up to and with the current one."""
    spans = _minutes(now, minutes)
    return await _series(name, now, spans, await stats.series(reads, [queue_id], spans[0]))


async def of_past(reads: Reader, now: datetime, tenant_id: int, minutes: int) -> Series:
    """Return the last `minutes` of a tenant as far as they are over and have been summed, at the same cost for any number of
    queues."""
    spans = _minutes(now, minutes)[:-1]
    if now.second < SUMMED_BY_SECOND:
        del spans[-1]
    return await _series(None, now, spans, await stats.past(reads, tenant_id, spans[0]))


async def of_queues(reads: Reader, now: datetime, queue_ids: Sequence[int], minutes: int) -> Series:
    """Return the last `minutes` of several queues together."""
    spans = _minutes(now, minutes)
    return await _series(None, now, spans, await stats.series(reads, queue_ids, spans[0]))


async def of_tenant(
    reads: Reader, now: datetime, tenant_id: int, minutes: int, sees: Callable[[str], bool] | None
) -> Series:
    """Return the last `minutes` over all queues of a tenant, or over those that `sees` admits.

    Minutes that are over are summed once for the whole tenant (app/engine/minutes.py); the last two may not be yet. Those of a
    part of its queues are summed here.
    """
    spans = _minutes(now, minutes)
    upto = spans[0] if sees is not None else max(spans[0], spans[-1] - timedelta(minutes=1))
    rows = await stats.tenant_series(reads, tenant_id, spans[0], upto)
    if sees is not None:
        rows = [row for row in rows if row.queue == SAMPLED or (row.queue is not None and sees(row.queue))]
    return await _series(None, now, spans, rows)


async def _series(name: str | None, now: datetime, spans: Sequence[datetime], rows: Sequence[SeriesRow]) -> Series:
    sampled = {row.minute for row in rows if row.queue == SAMPLED}
    found: dict[datetime, list[SeriesRow]] = {}
    for row in rows:
        if row.queue != SAMPLED:
            found.setdefault(row.minute, []).append(row)
    points = [_point(at, found.get(at, ()), at in sampled) async for at in in_pieces(spans)]
    return Series(name, format_instant(now), points)


def _point(at: datetime, rows: Sequence[SeriesRow], sampled: bool) -> Point:
    wait, run = summed(row.wait for row in rows), summed(row.run for row in rows)
    return Point(
        format_instant(at),
        sum(row.enqueued for row in rows),
        sum(row.started for row in rows),
        sum(row.succeeded for row in rows),
        sum(row.dead for row in rows),
        sum(row.cancelled for row in rows),
        sum(row.retried for row in rows),
        percentile(wait, 0.5),
        percentile(wait, 0.95),
        percentile(run, 0.5),
        percentile(run, 0.95),
        sum(row.ready or 0 for row in rows) if sampled else None,
        sum(row.running or 0 for row in rows) if sampled else None,
    )
