"""Replicas as people see them; nothing decides by these rows."""

from dataclasses import dataclass
from datetime import datetime

from app.store.db import Reader

ALIVE_SECONDS = 10.0
"""A replica heard of within this time counts as alive."""
SHOWN_SECONDS = 3600
"""How long a replica that went silent without saying goodbye is remembered."""
ENGINE_LIVES = f"""exists (select from sluice.replicas e where e.roles <> 'api' and not e.draining
                              and e.seen_at > clock_timestamp() - make_interval(secs => {ALIVE_SECONDS}))"""
"""A condition: somebody promotes, claims and delivers."""


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


async def beat(
    db: Reader, replica_id: str, name: str, roles: str, version: str, *, draining: bool, deaf: bool
) -> tuple[datetime, int, int]:
    """The heartbeat, whose first makes the row; the database's now, how many other replicas are alive, and the oldest
    release, by its schema, that may still run."""
    (row,) = await db.fetch(
        """
        with me as (
          insert into sluice.replicas (id, name, roles, version, started_at, seen_at, draining, deaf)
          values ($1, $2, $3, $4, clock_timestamp(), clock_timestamp(), $5, $6)
          on conflict (id) do update set seen_at = excluded.seen_at, draining = excluded.draining,
            deaf = excluded.deaf)
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
        select id::text, name, roles, version, started_at, seen_at, draining, deaf,
               extract(epoch from clock_timestamp() - seen_at)::double precision as silent_seconds
        from sluice.replicas where seen_at > clock_timestamp() - make_interval(secs => $1) order by name, id
        """,
        SHOWN_SECONDS,
    )
    return [ReplicaRow(**row) for row in rows]


async def forget_silent(db: Reader) -> None:
    await db.fetch(
        "delete from sluice.replicas where seen_at < clock_timestamp() - make_interval(secs => $1)", SHOWN_SECONDS
    )
