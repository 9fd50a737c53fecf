"""How late schedules fire that are due in the same second, and what many cost that are not due: seen in the ledger.

One schedule is made over the contract. The others are copies of its row: they are not what is measured here.
"""

import asyncio
import math
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from bench import filling
from bench.figures import quantile
from bench.ground import QUEUE, Ground
from bench.measures.crowding import idle_cost
from bench.subject import PAYLOAD, Subject

PERIODS = {1: 1, 100: 2, 1_000: 2, 10_000: 6}
"""Seconds between the times at which so many schedules are due: enough to fire and deliver them all."""
HEAD_SECONDS = 2
"""For making the copies, before the first time."""
ENDED_SECONDS = 60.0
YEARS_SECONDS = 5 * 365 * 86_400

_UNENDED = """
select count(*) from sluice.schedules s
where s.name like $1 || '%' and (s.look_at is not null or exists (
  select from sluice.schedule_runs r where r.schedule_id = s.id and r.outcome in ('running', 'waiting')))
"""
_LAGS = """
select extract(epoch from r.fired_at - r.nominal_at)::float8
from sluice.schedule_runs r join sluice.schedules s on s.id = r.schedule_id where s.name like $1 || '%'
order by 1
"""


async def fire_lag(ground: Ground) -> dict[str, Any]:
    """By number of schedules: from nominal time to firing over all rounds, in which all are due at once; then many that are
    due in years, beside one."""
    size = ground.size
    async with ground.subject() as subject:
        lags = {str(count): await _lags(ground, subject, count) for count in size.schedules}
        many = max(size.schedules)
        await _make(subject, "far-", {"at": _instant(time.time() + YEARS_SECONDS)})
        one = await idle_cost(ground, subject, size.idle_seconds / 2)
        await _copies(subject, "far-", many)
        idle = await idle_cost(ground, subject, size.idle_seconds / 2)
    most = lags[str(many)]
    return {"lags": lags, "most": most, "idle": {"schedules": many, "one": one, "many": idle}}


async def _lags(ground: Ground, subject: Subject, count: int) -> dict[str, Any]:
    name, period, rounds = f"fire-{count}-", PERIODS[count], ground.size.fire_rounds
    first = math.ceil((time.time() + HEAD_SECONDS) / period) * period
    last = first + period * (rounds - 1)
    span = {"start_at": _instant(first), "end_at": _instant(last + period / 2)}
    await _make(subject, name, {"every_seconds": period, "overlap": "allow_all", **span})
    await _copies(subject, name, count)
    ended = await _until_ended(subject.database, name, last - time.time() + ENDED_SECONDS)
    lag = [row[0] for row in await subject.database.fetch(_LAGS, name)]
    if not ended or len(lag) != count * rounds:
        ground.problems.append(f"{count} schedules fired {len(lag)} times in {rounds} rounds")
    return {
        "schedules": count,
        "p50_seconds": quantile(lag, 0.50),
        "p99_seconds": quantile(lag, 0.99),
        "max_seconds": quantile(lag, 1.0),
        "rounds": rounds,
    }


async def _make(subject: Subject, name: str, timing: dict[str, Any]) -> None:
    await subject.ask("PUT", f"/schedules/{name}", {"queue": QUEUE, "payload": PAYLOAD, **timing})


async def _copies(subject: Subject, name: str, count: int) -> None:
    await filling.copies(subject.database, "sluice.schedules", "r.name = $1", name, count - 1, name="r.name || s")
    await subject.database.execute("vacuum (analyze) sluice.schedules")


async def _until_ended(database: asyncpg.Connection, name: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while await database.fetchval(_UNENDED, name):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.5)
    return True


def _instant(unix_seconds: float) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=unix_seconds)).isoformat()
