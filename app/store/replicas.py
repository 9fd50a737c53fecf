"""Replicas as people see them; nothing decides by these rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.domain.connections import Connections
from app.store.db import Reader

ALIVE_SECONDS = 10.0
"""A replica heard of within this time counts as alive."""
SHOWN_SECONDS = 3600
"""How long a replica that went silent without saying goodbye is remembered."""
ENGINES = f"""from sluice.replicas e where e.roles <> 'api' and not e.draining
                                and e.seen_at > clock_timestamp() - make_interval(secs => {ALIVE_SECONDS})"""
ENGINE_LIVES = f"exists (select {ENGINES})"
"""A condition: somebody promotes, claims and delivers."""


@dataclass(frozen=True, slots=True)
class Load:
    """The calls of an engine, and who waits for a place among them."""

    max_in_flight: int = 0
    in_flight: int = 0
    short_tenants: Sequence[int] = ()
    """Tenants with ready tasks, that may have no more calls under way now."""
    short_queues: Sequence[int] = ()
    """Queues of others with ready tasks, that may have no more."""


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
    """Its LISTEN is lost."""
    silent_seconds: float
    connections: int
    """To the database, that it took at its start."""
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
) -> tuple[datetime, int, int]:
    """The heartbeat, whose first makes the row; the database's now, how many other replicas are alive, and the oldest
    release, by its schema, that may still run."""
    (row,) = await db.fetch(
        """
        with me as (
          insert into sluice.replicas (id, name, roles, version, started_at, seen_at, draining, deaf, max_in_flight, in_flight,
                                       short_tenants, short_queues, connections, connections_wanted)
          values ($1, $2, $3, $4, clock_timestamp(), clock_timestamp(), $5, $6, $8, $9, $10, $11, $12, $13)
          on conflict (id) do update set seen_at = excluded.seen_at, draining = excluded.draining, deaf = excluded.deaf,
            max_in_flight = excluded.max_in_flight, in_flight = excluded.in_flight,
            short_tenants = excluded.short_tenants, short_queues = excluded.short_queues)
        select clock_timestamp() as now, (select count(*) from sluice.replicas
          where id <> $1 and seen_at > clock_timestamp() - make_interval(secs => $7)) as others,
          (select min_compatible from sluice.meta) as min_compatible
        """,
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
    )
    return row["now"], row["others"], row["min_compatible"]


async def engine_lives(db: Reader) -> bool:
    lives: bool = await db.fetchval(f"select {ENGINE_LIVES}")
    return lives


async def gone(db: Reader, replica_id: str) -> None:
    """This replica has stopped in order."""
    await db.fetch("delete from sluice.replicas where id = $1", replica_id)


async def list_recent(db: Reader) -> list[ReplicaRow]:
    rows = await db.fetch(
        """
        select id::text, name, roles, version, started_at, seen_at, draining, deaf, connections, connections_wanted, max_in_flight,
               in_flight, extract(epoch from clock_timestamp() - seen_at)::double precision as silent_seconds
        from sluice.replicas where seen_at > clock_timestamp() - make_interval(secs => $1) order by name, id
        """,
        SHOWN_SECONDS,
    )
    return [ReplicaRow(**row) for row in rows]


async def forget_silent(db: Reader) -> None:
    await db.fetch(
        "delete from sluice.replicas where seen_at < clock_timestamp() - make_interval(secs => $1)", SHOWN_SECONDS
    )
