"""Nothing of a stranger's is run: names that look like Postgres's own are looked for in Postgres alone."""

from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from app.store import functions, session
from app.store.connecting import connected
from app.store.migrations import migrate
from tests.databases import with_database
from tests.handlers import Handler
from tests.sluices import Replica
from tests.walk import walk
from tests.wire.api import Api

pytestmark = pytest.mark.anyio

# A better match than what comes with Postgres is taken from anywhere in the search path: `cardinality(uuid[])` beats
# `cardinality(anyarray)`. So each of its polymorphic functions and operators gets a rival for each type that Sluice uses, which
# counts in a sequence: that stays, whatever becomes of the transaction.
RIVALS = """
do $do$
declare v_type text; v_args text; v_row record; v_n integer := 0;
  v_body text := $b$ begin perform pg_catalog.nextval('public.ran'); raise exception 'a stranger''s function ran'; end $b$;
begin
  create sequence public.ran;
  grant usage on sequence public.ran to public;
  foreach v_type in array array['uuid', 'bigint', 'integer', 'smallint', 'text', 'bytea', 'timestamptz', 'jsonb', 'boolean'] loop
    for v_row in
      with concrete as (
        select t.oid, t.typname like 'any%' as open, case when t.typname in ('anyarray', 'anycompatiblearray') then v_type || '[]'
                           when t.typname in ('anyelement', 'anynonarray', 'anycompatible', 'anycompatiblenonarray') then v_type
                           when t.typtype <> 'p' then format_type(t.oid, null) end as name
        from pg_type t)
      select p.proname as name, 'function' as kind,
             array(select c.name from unnest(p.proargtypes) with ordinality u(t, o) join concrete c on c.oid = u.t order by o) args
      from pg_proc p
      where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f' and p.provariadic = 0 and p.pronargs between 1 and 4
        and exists (select from concrete c where c.open and c.oid = any(p.proargtypes))
      union all
      select o.oprname, 'operator', array[l.name, r.name]
      from pg_operator o join concrete l on l.oid = o.oprleft join concrete r on r.oid = o.oprright
      where l.open or r.open
    loop
      continue when array_position(v_row.args, null) is not null;
      v_args := array_to_string(v_row.args, ', ');
      v_n := v_n + 1;
      begin
        if v_row.kind = 'function' then
          execute format('create function public.%I(%s) returns boolean language plpgsql as %L', v_row.name, v_args, v_body);
        else
          execute format('create function public.rival_%s(%s) returns boolean language plpgsql as %L', v_n, v_args, v_body);
          execute format('create operator public.%s (leftarg = %s, rightarg = %s, function = public.rival_%s)', v_row.name,
                         v_row.args[1], v_row.args[2], v_n);
        end if;
      exception when duplicate_function then null;
      end;
    end loop;
  end loop;
  foreach v_args in array array['format', 'jsonb_build_object', 'jsonb_build_array', 'concat', 'concat_ws'] loop
    for v_n in 1..8 loop
      execute format('create or replace function public.%I(%s) returns jsonb language plpgsql as %L', v_args,
                     array_to_string(array_fill('text'::text, array[v_n]), ', '), v_body);
    end loop;
  end loop;
end $do$
"""


RIVAL = """
create sequence public.ran;
grant usage on sequence public.ran to public;
create function public.cardinality(uuid[]) returns integer language plpgsql as
  $$ begin perform pg_catalog.nextval('public.ran'); raise exception 'a stranger''s function ran'; end $$
"""


@pytest.fixture
async def stranger(empty_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A role that may make things in `public` of a migrated database, and no more."""
    await migrate(empty_database_url)
    connection, role = await asyncpg.connect(empty_database_url), f"stranger_{uuid4().hex}"
    await connection.execute(
        f"create role {role}; grant create, usage on schema public to {role}; set role {role};"
        " set search_path = pg_catalog, pg_temp"  # to meet nothing of its own
    )
    yield connection
    await connection.execute(f"reset role; drop owned by {role} cascade; drop role {role}")
    await connection.close()


async def ran(stranger: asyncpg.Connection) -> bool:
    return bool(await stranger.fetchval("select is_called from public.ran"))


@pytest.mark.ci
async def test_a_stranger_s_functions_and_operators_are_never_run(
    stranger: asyncpg.Connection,
    empty_database_url: str,
    start_replica: Callable[..., Awaitable[Replica]],
    handler: Handler,
) -> None:
    await stranger.execute(RIVALS)
    replica = await start_replica(database_url=empty_database_url)
    await walk(Api(replica.client, replica.url), handler)
    assert not await ran(stranger)
    async with connected(empty_database_url, search_path="pg_catalog, public") as careless:
        for asked in (
            "select cardinality('{}'::uuid[])",
            "select 1::bigint || ''::text",
            "select unnest('{}'::uuid[])",
        ):
            with pytest.raises(asyncpg.RaiseError, match="a stranger's function ran"):
                await careless.execute(asked)
    assert await ran(stranger)


@pytest.mark.ci
async def test_nor_are_they_behind_a_transaction_pooler_where_no_session_has_a_search_path_of_ours(
    stranger: asyncpg.Connection,
    empty_database_url: str,
    start_pooler: Callable[..., Awaitable[str]],
    start_replica: Callable[..., Awaitable[Replica]],
    handler: Handler,
) -> None:
    await stranger.execute(RIVALS)
    pooled = with_database(await start_pooler("transaction"), urlsplit(empty_database_url).path.lstrip("/"))
    replica = await start_replica(database_url=pooled, database_direct_url=empty_database_url)
    await walk(Api(replica.client, replica.url), handler)
    assert not await ran(stranger)


async def test_nor_is_it_run_within_the_functions_when_someone_else_calls_them(
    stranger: asyncpg.Connection, empty_database_url: str
) -> None:
    """As whoever owns the database might, in a session that looks in `public`."""
    await stranger.execute(RIVAL)
    owner = await asyncpg.connect(empty_database_url)
    try:
        assert "public" in await owner.fetchval("show search_path")
        await owner.fetch("select * from sluice.settle_v1('{}')")
        assert not await ran(stranger)
        with pytest.raises(asyncpg.RaiseError, match="a stranger's function ran"):
            await owner.fetch("select cardinality('{}'::uuid[])")
    finally:
        await owner.close()


async def test_no_connection_looks_in_public(replica: Replica) -> None:
    db = replica.sluice.core.db
    assert await db.fetchval("show search_path") == session.SEARCH_PATH
    assert await db.reads(1).fetchval("show search_path") == session.SEARCH_PATH
    async with db.begin(1) as connection:
        assert await connection.fetchval("show search_path") == session.SEARCH_PATH
    async with connected(db.direct_dsn) as own:
        assert await own.fetchval("show search_path") == session.SEARCH_PATH


async def test_every_function_looks_its_names_up_in_postgres_alone(database_url: str) -> None:
    """By its search path, or because its body was read when it was made; or by that of sluice.enqueue, its only caller."""
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(
            "select proname, proconfig, prosqlbody is not null as fixed, prosecdef from pg_proc"
            " where pronamespace = 'sluice'::regnamespace"
        )
    finally:
        await connection.close()
    assert rows
    rows = [row for row in rows if row["proname"] not in functions.WITHIN_ENQUEUE]
    wanted = f"search_path={session.SEARCH_PATH}"
    assert [row["proname"] for row in rows if not row["fixed"] and wanted not in (row["proconfig"] or [])] == []
    assert {row["proname"] for row in rows if row["prosecdef"]} == {"ensure_partitions_v1", "enqueue", "enqueue_many"}
