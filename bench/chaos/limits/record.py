"""What happened to tasks, recorded by triggers of the run's own, in the order of the commits.

A deferred trigger runs at the end of its transaction. It takes a lock that is held through the commit, then draws a number: so the
numbers are in the order of the commits, and whoever commits later sees what came before. Only the columns of `sluice.tasks` that
tell when a task is leased are read; everything else comes from the payload, which the run itself has made (`Task`).
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg
import msgspec

from bench.chaos.limits.terms import Task, Terms

_SETUP = """
create schema chaos;
create sequence chaos.numbers cache 1;
create unlogged table chaos.events (
  n bigint primary key, commit_id xid8 not null default pg_current_xact_id(), what text not null, task uuid,
  at timestamptz not null, body text);
create function chaos.record(p_what text, p_task uuid, p_at timestamptz, p_body text) returns void language plpgsql as $$
begin
  perform pg_advisory_xact_lock(7361, 1);
  insert into chaos.events (n, what, task, at, body) values (nextval('chaos.numbers'), p_what, p_task, p_at, p_body);
end $$;
create function chaos.on_task() returns trigger language plpgsql as $$
begin
  if tg_op = 'INSERT' then
    perform chaos.record('stored', new.id, clock_timestamp(), convert_from(new.payload, 'UTF8'));
    return null;
  end if;
  if old.lease_token is not null and (tg_op = 'DELETE' or new.lease_token is distinct from old.lease_token) then
    perform chaos.record('ended', old.id, clock_timestamp(), null);
  end if;
  if tg_op = 'UPDATE' and new.lease_token is not null and new.lease_token is distinct from old.lease_token then
    perform chaos.record('admitted', new.id, new.last_started_at, convert_from(new.payload, 'UTF8'));
  end if;
  if tg_op = 'DELETE' then
    perform chaos.record('gone', old.id, clock_timestamp(), null);
  end if;
  return null;
end $$;
create constraint trigger chaos_written after insert or delete on sluice.tasks deferrable initially deferred
  for each row execute function chaos.on_task();
create constraint trigger chaos_leased after update on sluice.tasks deferrable initially deferred
  for each row when (old.lease_token is distinct from new.lease_token) execute function chaos.on_task();
"""
_EVENTS = "select n, commit_id::text::bigint as commit, what, task::text as task, at, body from chaos.events order by n"


class Event(NamedTuple):
    """One thing that happened. Those of one transaction have the same `commit` and follow each other."""

    number: int
    commit: int
    what: str
    """stored, admitted, ended, gone (of a task: it ended for good); changing, changed (of a limit)."""
    task: str | None
    at: datetime
    """In the database's time; of an admission, what the product says it judged rates by."""
    body: Task | dict[str, Terms] | None


async def install(database: asyncpg.Connection) -> None:
    """Install the triggers in a database that has the product's tables.

    Raises:
        asyncpg.PostgresError: They are there already, or `sluice.tasks` is not as they expect.
    """
    await database.execute(_SETUP)


async def note(database: asyncpg.Connection, what: str, terms: Mapping[str, Terms]) -> None:
    """Record that the terms of limits, by name, are about to change (`changing`) or are in force (`changed`)."""
    body = msgspec.json.encode(terms).decode()
    await database.execute("select chaos.record($1, null, clock_timestamp(), $2)", what, body)


async def read(database: asyncpg.Connection) -> list[Event]:
    """Return everything recorded so far, in the order of the commits."""
    return [_event(row) for row in await database.fetch(_EVENTS)]


def _event(row: Mapping[str, Any]) -> Event:
    body: Task | dict[str, Terms] | None = None
    if row["what"] in ("changing", "changed"):
        body = msgspec.json.decode(row["body"], type=dict[str, Terms])
    elif row["body"] is not None:
        body = msgspec.json.decode(row["body"], type=Task)
    return Event(row["n"], row["commit"], row["what"], row["task"], row["at"], body)
