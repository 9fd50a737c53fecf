"""The schema: up, down, up again; what tables.py says of it; and many replicas that bring it up at once."""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import asyncpg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from app.main import wait_for_database
from app.settings import SettingsError
from app.store import migrations
from app.store.connecting import connect, connected
from app.store.migrations import SCHEMA_VERSION, SchemaMismatch, create_engine, migrate
from app.store.tables import metadata
from tests.databases import with_database
from tests.sluices import ROOT, Replica

pytestmark = pytest.mark.anyio

TERMINATE = b"X\x00\x00\x00\x04"

SHAPE = """
select 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull::text, pg_get_expr(d.adbin, d.adrelid)
from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
where c.relnamespace = 'sluice'::regnamespace and c.relkind in ('r', 'p')
union all
select 'index', tablename, indexname, indexdef, '', '' from pg_indexes where schemaname = 'sluice'
union all
select 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', '' from pg_constraint
where connamespace = 'sluice'::regnamespace
union all
select 'function', '', proname, pg_get_functiondef(oid), '', '' from pg_proc where pronamespace = 'sluice'::regnamespace
order by 1, 2, 3, 4
"""


async def shape(url: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(SHAPE)]
    finally:
        await connection.close()


async def alembic(url: str, verb: str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations.scripts()))
    engine = create_engine(lambda: connect(url))

    def run(connection: Connection) -> None:
        config.attributes["connection"] = connection
        getattr(command, verb)(config, revision)

    async with engine.connect() as connection:
        await connection.run_sync(run)
        await connection.commit()
    await engine.dispose()


@pytest.mark.ci
async def test_up_down_and_up_again_leads_to_the_same_schema(empty_database_url: str) -> None:
    assert await migrate(empty_database_url)
    first = await shape(empty_database_url)
    assert first
    await alembic(empty_database_url, "downgrade", "base")
    left = {row[1] or row[2] for row in await shape(empty_database_url)}
    assert {name.removeprefix("sluice.") for name in left} == {"alembic_version"}
    assert await migrate(empty_database_url)
    assert await shape(empty_database_url) == first


@pytest.mark.ci
async def test_the_command_line_of_alembic_finds_the_database(database_url: str) -> None:
    program = Path(sys.executable).with_name("alembic")
    process = await asyncio.create_subprocess_exec(
        program,
        "current",
        cwd=ROOT,
        env={**os.environ, "SLUICE_DATABASE_URL": database_url},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    assert said.decode().strip() == "0001 (head)"


async def test_nothing_is_made_outside_the_schema(empty_database_url: str) -> None:
    await migrate(empty_database_url)
    connection = await asyncpg.connect(empty_database_url)
    try:
        foreign = await connection.fetch(
            "select relname from pg_class where relnamespace not in ('sluice'::regnamespace, 'pg_catalog'::regnamespace, "
            "'information_schema'::regnamespace, 'pg_toast'::regnamespace)"
        )
    finally:
        await connection.close()
    assert foreign == []


async def test_the_tables_described_are_the_tables_migrated(database_url: str) -> None:
    described = {table.name for table in metadata.tables.values()}

    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "include_name": lambda name, kind, parents: (
                    name == "sluice" if kind == "schema" else name in described if kind == "table" else True
                ),
                "compare_type": True,
                "compare_server_default": True,
            },
        )
        return list(compare_metadata(context, metadata))

    # where the role bears the schema's name, the schema would be taken for the default one, and for no schema at all
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: connect(database_url, search_path="public")
    )
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


@pytest.mark.ci
async def test_four_replicas_that_migrate_at_once_all_succeed(empty_database_url: str) -> None:
    did = await asyncio.gather(*(migrate(empty_database_url) for _ in range(4)))
    assert sorted(did) == [False, False, False, True]
    assert not await migrate(empty_database_url)


async def test_a_schema_that_needs_a_newer_release_is_left_alone(empty_database_url: str) -> None:
    await migrate(empty_database_url)
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute(
        "update sluice.meta set schema_version = $1, min_compatible = $1".replace("$1", str(SCHEMA_VERSION + 1))
    )
    await connection.close()
    with pytest.raises(SchemaMismatch, match="start a newer sluice"):
        await migrate(empty_database_url)


@pytest.mark.parametrize(
    "change", ["update sluice.meta set digest = 'other'", "alter table sluice.meta drop column digest"]
)
async def test_a_schema_that_another_build_of_this_version_made_is_refused(
    empty_database_url: str, change: str
) -> None:
    await migrate(empty_database_url)
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute(change)
    await connection.close()
    with pytest.raises(SchemaMismatch, match="another build"):
        await migrate(empty_database_url)


async def test_a_newer_schema_that_is_still_compatible_is_not_touched(empty_database_url: str) -> None:
    await migrate(empty_database_url)
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute(f"update sluice.meta set schema_version = {SCHEMA_VERSION + 1}")
    await connection.close()
    assert not await migrate(empty_database_url)


@pytest.mark.ci
async def test_connections_that_do_not_close_do_not_hold_up_a_start(empty_database_url: str) -> None:
    """As behind a balancer that swallows the goodbye."""
    server = f"{parse_qs(urlsplit(empty_database_url).query)['host'][0]}/.s.PGSQL.5432"
    links: list[asyncio.Task[None]] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if data != TERMINATE:
                writer.write(data)

    async def link(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_server = await asyncio.open_unix_connection(server)
        links.extend(asyncio.create_task(pump(*way)) for way in ((reader, to_server[1]), (to_server[0], writer)))

    async with await asyncio.start_server(link, "127.0.0.1", 0) as balancer:
        port = balancer.sockets[0].getsockname()[1]
        parts = urlsplit(empty_database_url)
        began = time.monotonic()
        await wait_for_database(f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}?sslmode=disable")
        assert time.monotonic() - began < 15
        for task in links:
            task.cancel()
    assert not await migrate(empty_database_url)


async def test_a_database_that_cannot_hold_every_text_is_refused_in_one_sentence(server_url: str) -> None:
    name = f"sluice_test_{uuid4().hex}"
    owner = await asyncpg.connect(server_url)
    await owner.execute(f"create database {name} encoding 'LATIN1' locale 'C' template template0")
    try:
        with pytest.raises(SettingsError) as caught:
            await wait_for_database(with_database(server_url, name))
        (line,) = caught.value.lines
        assert line.startswith(
            "The database's encoding is LATIN1, which cannot store every text: give Sluice a database of its own"
        )
    finally:
        await owner.execute(f"drop database {name} with (force)")
        await owner.close()


async def test_an_address_with_all_that_hosts_add_leads_to_a_start(
    database_url: str, start_replica: Callable[..., Awaitable[Replica]]
) -> None:
    extra = (
        "channel_binding=prefer&connect_timeout=10&keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=5"
        "&application_name=mine&fallback_application_name=x&gssencmode=prefer&target_session_attrs=read-write&sslmode=prefer"
        "&options=-c%20search_path%3Dpublic%20-c%20statement_timeout%3D1ms&client_encoding=latin1&load_balance_hosts=disable"
    )
    url = database_url.replace("postgresql://", "postgresql+asyncpg://") + f"&{extra}"
    db = (await start_replica(database_url=url)).sluice.core.db
    (row,) = await db.fetch(
        "select current_setting('application_name') as name, current_setting('statement_timeout') as timeout"
    )
    assert tuple(row) == ("mine", "15s")


@pytest.mark.ci
async def test_a_host_that_is_silent_or_away_leaves_time_for_the_next(database_url: str) -> None:
    held: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        parts = urlsplit(database_url)
        hosts = f"host=127.0.0.1,/nowhere,{parse_qs(parts.query)['host'][0]}&port={port},1,5432&connect_timeout=2"
        async with connected(f"postgresql://{parts.username}@{parts.path}?{hosts}") as connection:
            assert await connection.fetchval("select 1") == 1
        assert held
        for writer in held:
            writer.close()
