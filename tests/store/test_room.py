"""How many connections a server has left, as a role sees it that may see nothing of others."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest

from app.embedded.postgres import EmbeddedPostgres
from app.store import room
from tests.support import pg_bin

pytestmark = pytest.mark.anyio


@pytest.fixture
async def confined(tmp_path: Path) -> AsyncIterator[str]:
    """The address for a role of at most ten sessions, in a database of at most twelve, on a server that lets anybody in."""
    postgres = EmbeddedPostgres(tmp_path / "postgres", bin_dir=pg_bin(), options={"fsync": "off"})
    await postgres.start()
    (postgres.directory.cluster / "pg_hba.conf").write_text("local all sluice peer map=sluice\nlocal all all trust\n")
    owner = await asyncpg.connect(postgres.dsn)
    await owner.execute("select pg_reload_conf()")
    await owner.execute("create role app login connection limit 10")
    await owner.execute("alter database sluice connection limit 12")
    yield postgres.dsn.replace("//sluice@", "//app@")
    await owner.close()
    await postgres.stop()


@pytest.mark.ci
async def test_the_sessions_of_others_count_for_a_role_that_sees_nothing_of_them(confined: str) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(3):
            own = await asyncpg.connect(confined)
            stack.push_async_callback(own.close)
        async with room.measured(confined) as limits:
            of_server, of_role, of_database = limits
    assert (of_role.max, of_role.used, of_role.left) == (10, 3, 7)
    assert (of_database.max, of_database.used) == (12, 4), "the owner's session, too"
    assert (of_server.max, of_server.used) == (197, 4)
    assert of_role.words == "raise the connection limit of role app (now 10)"
    assert of_database.words == "raise the connection limit of database sluice (now 12)"
    assert of_server.words == "raise the server's max_connections (now 200, of which 3 are reserved)"


async def test_a_superuser_is_held_to_the_servers_limit_alone(empty_database_url: str) -> None:
    async with room.measured(empty_database_url) as [limit]:
        assert limit.max == 297
