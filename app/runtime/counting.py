"""Queue statistics: counts by state, rates and percentiles.

Each replica counts in memory and about once per second adds its counts to each queue's current minute (`flush`), so a task costs
no statement of its own. Counts are for people: those that a crashed replica had not flushed are lost, and a flush whose answer
was lost may be added twice.

Rates cover the last five full minutes and the current one; the success share and the percentiles cover the last hour and the
current minute, so that quiet queues have data.
"""

import asyncio
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from app.domain.histograms import BUCKETS, bucket_of, percentile, summed
from app.domain.instants import format_instant
from app.store import stats as store
from app.store.db import Database
from app.store.stats import Minute
from app.telemetry.metrics import Metrics

RATE_MINUTES = 5
SHARE_MINUTES = 60


class StatsBuffer:
    """What this replica has counted since its last flush."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._minutes: dict[int, Minute] = {}
        self._flushing = asyncio.Lock()

    def enqueued(self, queue_id: int, count: int) -> None:
        self._of(queue_id).enqueued += count

    def started(self, queue_id: int, wait_seconds: float) -> None:
        minute = self._minutes.get(queue_id) or self._of(queue_id)
        minute.started += 1
        minute.wait[bucket_of(wait_seconds)] += 1

    def ended(self, queue_id: int, state: str, run_seconds: float, reason: str | None) -> None:
        """Count a task that succeeded or is dead after an attempt of `run_seconds`. `reason`: why it is dead."""
        minute = self._minutes.get(queue_id) or self._of(queue_id)
        if state == "succeeded":
            minute.succeeded += 1
        else:
            minute.dead += 1
            self._metrics.tasks_ended(queue_id, state, reason or "")
        minute.run[bucket_of(run_seconds)] += 1

    def ended_waiting(self, queue_id: int, state: str, reason: str, count: int = 1) -> None:
        """Count tasks that ended without an attempt to count: expired or cancelled."""
        minute = self._of(queue_id)
        if state == "dead":
            minute.dead += count
        else:
            minute.cancelled += count
        self._metrics.tasks_ended(queue_id, state, reason, count)

    def retried(self, queue_id: int) -> None:
        """Count an attempt that failed and whose task waits for the next one."""
        self._of(queue_id).retried += 1

    def _of(self, queue_id: int) -> Minute:
        minute = self._minutes.get(queue_id)
        if minute is None:
            minute = self._minutes[queue_id] = Minute(queue_id, 0, 0, 0, 0, 0, 0, [0] * BUCKETS, [0] * BUCKETS)
        return minute

    async def flush(self, db: Database) -> None:
        """Write everything counted before the call. Raises Unavailable, and then keeps the counts."""
        async with self._flushing:
            if not self._minutes:
                return
            taken, self._minutes = self._minutes, {}
            try:
                await store.add_minutes(db, list(taken.values()))
            except BaseException:
                self._take_back(taken)
                raise
            # what happens to every task is counted once a flush here, not once a task
            for minute in taken.values():
                if minute.enqueued:
                    self._metrics.tasks_enqueued(minute.queue_id, minute.enqueued)
                if minute.succeeded:
                    self._metrics.tasks_ended(minute.queue_id, "succeeded", "", minute.succeeded)

    def _take_back(self, taken: dict[int, Minute]) -> None:
        for queue_id, old in taken.items():
            minute = self._of(queue_id)
            minute.enqueued += old.enqueued
            minute.started += old.started
            minute.succeeded += old.succeeded
            minute.dead += old.dead
            minute.cancelled += old.cancelled
            minute.retried += old.retried
            minute.wait = summed((minute.wait, old.wait))
            minute.run = summed((minute.run, old.run))


async def of_queue(db: Database, buffer: StatsBuffer, tenant_id: int, queue_id: int, name: str) -> dict[str, Any]:
    """Return what GET /queues/{name}/stats shows."""
    await buffer.flush(db)
    reads = db.reads(tenant_id)
    counts = await store.count(reads, queue_id)
    keys = await store.count_keys(reads, queue_id)
    minute = counts.now.replace(second=0, microsecond=0)
    hour = await store.read_minutes(reads, queue_id, minute - timedelta(minutes=SHARE_MINUTES))
    rates_from = minute - timedelta(minutes=RATE_MINUTES)
    lately = [row for at, row in hour if at >= rates_from]
    minutes = (counts.now - rates_from).total_seconds() / 60
    succeeded, dead = sum(row.succeeded for _, row in hour), sum(row.dead for _, row in hour)
    shown = asdict(counts)
    states = ("scheduled", "ready", "running", "succeeded", "dead", "cancelled")
    return {
        "queue": name,
        "counts": {state: shown[state] for state in states},
        "oldest_ready_age_seconds": counts.oldest_ready_age_seconds,
        "per_minute": {
            "enqueued": sum(row.enqueued for row in lately) / minutes,
            "started": sum(row.started for row in lately) / minutes,
            "ended": sum(row.succeeded + row.dead + row.cancelled for row in lately) / minutes,
        },
        "success_share": succeeded / (succeeded + dead) if succeeded + dead else None,
        "wait_seconds": _percentiles(summed(row.wait for _, row in hour)),
        "run_seconds": _percentiles(summed(row.run for _, row in hour)),
        "keys": keys,
        "as_of": format_instant(counts.now),
    }


def _percentiles(histogram: list[int]) -> dict[str, float | None]:
    return {name: percentile(histogram, share) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
