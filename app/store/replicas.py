"""Replicas, for people; no decision depends on these rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.domain.connections import Connections
from app.store.db import Reader
from app.store.statements import part, sql

ALIVE_SECONDS = 10.0
"""A replica seen within this time counts as alive."""
SHOWN_SECONDS = 3600
"""How long a replica that stopped without a clean shutdown is shown."""
ENGINES = part("living_engines", alive_seconds=str(ALIVE_SECONDS))
"""A FROM clause: the replicas that promote, claim and deliver."""
_BEAT = sql("beat_replica")
_ENGINE_LIVES = sql("check_engines", engines=ENGINES)
_REMOVE = sql("remove_replica")
_LIST = sql("list_replicas")
_PRUNE = sql("prune_replicas")


@dataclass(frozen=True, slots=True)
class Load:
    """An engine's calls, and who waits for a place."""

    max_in_flight: int = 0
    in_flight: int = 0
    short_tenants: Sequence[int] = ()
    """Tenants with ready tasks that may start no more calls now."""
    short_queues: Sequence[int] = ()
    """Queues of other tenants with ready tasks that may start no more calls now."""


@dataclass(frozen=True, slots=True)
class ReplicaRow:
    id: str
    name: str
    roles: str
    version: str
    started_at: datetime
    seen_at: datetime
    draining: bool
    deaf: bool
    """Its LISTEN connection is lost."""
    silent_seconds: float
    connections: int
    """Database connections that it opened at its start."""
    connections_wanted: int
    max_in_flight: int
    in_flight: int


async def beat(
    db: Reader,
    replica_id: str,
    name: str,
    roles: str,
    version: str,
    *,
    draining: bool,
    deaf: bool,
    load: Load,
    connections: Connections,
    max_payload_bytes: int,
) -> tuple[datetime, int, int]:
    """Send a heartbeat; the first creates the row. Return the database's time, how many other replicas are alive, and the oldest
    schema version whose releases may still run."""
    (row,) = await db.fetch(
        _BEAT,
        replica_id,
        name,
        roles,
        version,
        draining,
        deaf,
        ALIVE_SECONDS,
        load.max_in_flight,
        load.in_flight,
        load.short_tenants,
        load.short_queues,
        connections.total,
        connections.wanted,
        max_payload_bytes,
    )
    return row["now"], row["others"], row["min_compatible"]


async def engine_lives(db: Reader) -> bool:
    lives: bool = await db.fetchval(_ENGINE_LIVES)
    return lives


async def gone(db: Reader, replica_id: str) -> None:
    """Remove this replica, which has shut down cleanly."""
    await db.fetch(_REMOVE, replica_id)


async def list_recent(db: Reader) -> list[ReplicaRow]:
    rows = await db.fetch(_LIST, SHOWN_SECONDS)
    return [ReplicaRow(**row) for row in rows]


async def forget_silent(db: Reader) -> None:
    await db.fetch(_PRUNE, SHOWN_SECONDS)
