"""How late schedules fire that are due in the same second, and what many cost that are not due: seen in ledger and database.

One schedule is made over the contract. The others are copies of its row: they are not what is measured here.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from bench.figures import quantile
from bench.subject import PAYLOAD, Subject

QUEUE = "bench-fire"
PERIODS = {1: 1, 1_000: 2, 10_000: 6}
"""Seconds between the times at which so many schedules are due: enough to fire and deliver them all."""
HEAD_SECONDS = 2
"""For making the copies, before the first time."""
ENDED_SECONDS = 60.0
MANY = 10_000
SETTLE_SECONDS, IDLE_SECONDS = 2.0, 4.0

_COPY = """
insert into sluice.schedules ({columns})
select {values} from sluice.schedules s, generate_series(2, $2::int) n where s.name = $1
"""
_COLUMNS = """
select array_agg(quote_ident(attname) order by attnum) from pg_attribute
where attrelid = 'sluice.schedules'::regclass and attnum > 0 and not attisdropped and attname <> 'id'
"""
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
_COMMITS = "select pg_stat_clear_snapshot(), xact_commit from pg_stat_database where datname = current_database()"


async def lags(
    subject: Subject, database: asyncpg.Connection, counts: Sequence[int], rounds: int
) -> list[dict[str, Any]]:
    """For each count: milliseconds from nominal time to firing over all rounds, in which all are due at once."""
    found = []
    for count in counts:
        name, period = f"bench-fire-{count}-", PERIODS[count]
        first = math.ceil((time.time() + HEAD_SECONDS) / period) * period
        last = first + period * (rounds - 1)
        span = {"start_at": _instant(first), "end_at": _instant(last + period / 2)}
        await _make(subject, name, {"every_seconds": period, "overlap": "allow_all", **span})
        await _copies(database, name, count)
        ended = await _until_ended(database, name, last - time.time() + ENDED_SECONDS)
        lag = [row[0] for row in await database.fetch(_LAGS, name)]
        found.append(
            {
                "schedules": count,
                "p50_ms": quantile(lag, 0.50) * 1000,
                "p99_ms": quantile(lag, 0.99) * 1000,
                "max_ms": quantile(lag, 1.0) * 1000,
                "rounds": rounds,
                "fired": len(lag),
                "exact": ended and len(lag) == count * rounds,
            }
        )
    return found


async def idle_costs(subject: Subject, database: asyncpg.Connection) -> dict[str, Any]:
    """Transactions and CPU milliseconds a second with one schedule that is due in years, and with many."""
    name = "bench-far-"
    # what it has to do after the rounds would be counted as the service's
    await database.execute("alter system set autovacuum = off")
    await database.execute("select pg_reload_conf()")
    await _make(subject, name, {"at": _instant(int(time.time()) + 5 * 365 * 86_400)})
    one = await _idle(subject, database)
    await _copies(database, name, MANY)
    await database.execute("vacuum analyze sluice.schedules")
    many = await _idle(subject, database)
    return {
        "schedules": MANY,
        "one": one,
        "many": many,
        "transactions_ratio": many["transactions_per_second"] / one["transactions_per_second"],
        "cpu_ratio": many["cpu_ms_per_second"] / one["cpu_ms_per_second"],
    }


async def _idle(subject: Subject, database: asyncpg.Connection) -> dict[str, float]:
    """The CPU is that of the service, not of the database."""
    await asyncio.sleep(SETTLE_SECONDS)
    commits, cpu, began = await _commits(database), subject.child.cpu_seconds(), time.monotonic()
    await asyncio.sleep(IDLE_SECONDS)
    took = time.monotonic() - began
    return {
        "transactions_per_second": (await _commits(database) - commits) / took,
        "cpu_ms_per_second": (subject.child.cpu_seconds() - cpu) * 1000 / took,
    }


async def _commits(database: asyncpg.Connection) -> int:
    return int((await database.fetchrow(_COMMITS))[1])


async def _make(subject: Subject, name: str, timing: dict[str, Any]) -> None:
    await subject.ask("PUT", f"/schedules/{name}", {"queue": QUEUE, "payload": PAYLOAD, **timing})


async def _copies(database: asyncpg.Connection, name: str, count: int) -> None:
    columns = await database.fetchval(_COLUMNS)
    values = ", ".join("s.name || n" if column == "name" else f"s.{column}" for column in columns)
    await database.execute(_COPY.format(columns=", ".join(columns), values=values), name, count)


async def _until_ended(database: asyncpg.Connection, name: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while await database.fetchval(_UNENDED, name):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.5)
    return True


def _instant(unix_seconds: float) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=unix_seconds)).isoformat()
