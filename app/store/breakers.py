"""What is known of handlers that suffer, and the counts of their calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from app.domain.breakers import Adaptive, Breaker, Guard, Health, Seen, State, effective, look_at
from app.domain.histograms import summed, trimmed
from app.store.db import Reader
from app.store.statements import call, sql

WINDOW_SECONDS = Guard().window_seconds

_ADD = sql("add_calls")
_LOOK = sql("look_at_handlers")
_PARK_KEY = call("park_key_v1", 4)
_NEXT = sql("find_next_health")
_OVERVIEW = sql("show_handlers")
_WRITE = sql("write_health")
_FORGET = sql("forget_health")
_HISTOGRAMS = msgspec.json.Decoder(list[list[int]])


@dataclass(slots=True)
class Calls:
    """What a replica has counted of a handler's calls in one period."""

    handler_id: int
    period: int
    calls: int
    failures: int
    """With `pushed_back`."""
    pushed_back: int
    found_full: bool
    durations: list[int]


@dataclass(frozen=True, slots=True)
class HandlerHealth:
    """A handler with what decides about it, by the database's clock."""

    handler_id: int
    tenant_id: int
    tenant: str
    name: str
    guard: Guard
    parked_until: datetime | None
    health: Health
    look_at: datetime | None
    at: datetime
    seen: Seen
    calls: int
    """In the window, of all periods, as the others."""
    failures: int
    pushed_back: int
    durations: Sequence[int]
    """Empty unless they were asked for."""


@dataclass(frozen=True, slots=True)
class HandlerOverview:
    """A handler of any tenant: the columns of show_handlers, in order."""

    tenant: str
    handler: str
    state: State | None
    """None: no breaker."""
    max_concurrency: int | None
    """The limit now."""
    parked_seconds: float | None
    enabled: bool
    running: int
    """Tasks that it holds."""


async def overview(db: Reader, limit: int) -> list[HandlerOverview]:
    """Return up to `limit` of all tenants, those in trouble first."""
    return [HandlerOverview(*row) for row in await db.fetch(_OVERVIEW, limit)]


async def add_calls(db: Reader, counted: Sequence[Calls]) -> None:
    """Add to the present second. Each handler and period may occur once."""
    rows = sorted(counted, key=lambda calls: (calls.handler_id, calls.period))
    columns = [[getattr(row, name) for row in rows] for name in Calls.__slots__[:6]]
    durations = ["{" + ",".join(map(str, trimmed(row.durations))) + "}" for row in rows]
    await db.fetch(_ADD, *columns, durations)


async def look(db: Reader, handler_ids: Sequence[int], due: int) -> list[HandlerHealth]:
    """Return these handlers, and up to `due` others that are due; none without a breaker and an adaptive limit."""
    return [_read(row) for row in await db.fetch(_LOOK, list(handler_ids), due, False, WINDOW_SECONDS)]


async def park_key(db: Reader, tenant_id: int, queue_id: int, key: str, seconds: float) -> bool:
    """Admit no task of a key for so many seconds; return whether that is longer than before. Without a limit of keys: False."""
    parked: bool = await db.fetchval(_PARK_KEY, tenant_id, queue_id, key, seconds)
    return parked


async def next_look(db: Reader) -> float | None:
    """Return the seconds until time changes the health of a handler; None if it will not."""
    seconds: float | None = await db.fetchval(_NEXT)
    return seconds


async def read(reader: Reader, handler_id: int) -> HandlerHealth | None:
    """Return a handler with all that is counted; None if it has neither a breaker nor an adaptive limit."""
    rows = await reader.fetch(_LOOK, [handler_id], 0, True, WINDOW_SECONDS)
    return _read(rows[0]) if rows else None


async def write(connection: Reader, handler_id: int, health: Health) -> None:
    """Store the health of a handler whose exclusive lock is held."""
    await connection.fetch(
        _WRITE,
        handler_id,
        msgspec.json.encode(health).decode(),
        look_at(health),
        effective(health),
        health.state == "half_open",
        health.period,
    )


async def forget(connection: Reader, handler_id: int) -> None:
    """Forget the health of a handler whose exclusive lock is held."""
    await connection.fetch(_FORGET, handler_id)


def _read(row: Any) -> HandlerHealth:
    return HandlerHealth(
        handler_id=row["handler_id"],
        tenant_id=row["tenant_id"],
        tenant=row["tenant"],
        name=row["name"],
        guard=Guard(
            row["breaker"] and msgspec.json.decode(row["breaker"], type=Breaker),
            row["adaptive"] and msgspec.json.decode(row["adaptive"], type=Adaptive),
            row["max_concurrency"],
        ),
        parked_until=row["parked_until"],
        health=msgspec.json.decode(row["health"], type=Health),
        look_at=row["look_at"],
        at=row["at"],
        calls=row["all_calls"],
        failures=row["all_failures"],
        pushed_back=row["all_pushed_back"],
        durations=_summed(row["durations"]),
        seen=Seen(
            calls=row["calls"],
            failures=row["failures"],
            running=row["running"],
            new_calls=row["new_calls"],
            new_pushed_back=row["new_pushed_back"],
            new_full=row["new_full"],
            new_durations=_summed(row["new_durations"]),
            last_second=row["last_second"] or 0,
        ),
    )


def _summed(histograms: str | None) -> tuple[int, ...]:
    return () if histograms is None else tuple(summed(_HISTOGRAMS.decode(histograms)))
