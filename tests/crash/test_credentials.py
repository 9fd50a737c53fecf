"""Credentials that are wrong: a start says so in a line, a replica that runs takes the database for one that is away."""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest

from app.embedded.postgres import EmbeddedPostgres
from app.settings import SettingsError
from app.store.vault import fingerprint
from tests.crash.proxy import Proxy
from tests.databases import with_database
from tests.sluices import Replica, SluiceProcess
from tests.support import pg_bin, poll
from tests.wire.api import Api, problem

pytestmark = pytest.mark.anyio

StartReplica = Callable[..., Awaitable[Replica]]
StartSluice = Callable[..., Awaitable[SluiceProcess]]


async def refused_on_all_ways(replica: Replica, queue: str) -> None:
    """Reads, definitions, the group of enqueues, pulls."""
    for method, path, body in [
        ("get", "/tasks", None),
        ("get", f"/queues/{queue}/stats", None),
        ("put", "/queues/other", {}),
        ("post", f"/queues/{queue}/tasks", {"payload": 1}),
        ("post", f"/queues/{queue}/leases", {}),
        ("get", "/status", None),
    ]:
        problem(await replica.client.request(method, path, json=body), 503, "unavailable")
    assert (await replica.client.get("/health/ready")).status_code == 200


async def back_again(replica: Replica, queue: str, said: list[str]) -> None:
    async def back() -> bool:
        return (await replica.client.get("/tasks")).status_code == 200

    await poll(back)
    await poll(lambda: "database_back" in said)
    assert [name for name in said if name.startswith("database_")] == ["database_unavailable", "database_back"]
    await Api(replica.client, replica.url).enqueue(queue)


@pytest.mark.ci
async def test_a_database_that_is_renamed_under_a_replica_is_one_that_is_away(
    empty_database_url: str, server_url: str, start_replica: StartReplica, said: list[str]
) -> None:
    """A server that turns us away for what we ask for; the same code sees to one that does for who asks."""
    replica = await start_replica(database_url=empty_database_url)
    queue = await Api(replica.client, replica.url).queue()
    name = await replica.sluice.core.db.fetchval("select current_database()")
    owner = await asyncpg.connect(with_database(server_url, "postgres"))
    end_all = f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'"
    try:
        # it cannot be renamed while somebody is in it
        await owner.execute(f'alter database "{name}" allow_connections false')
        await owner.execute(end_all)
        await poll(lambda: owner.fetchval(f"select count(*) = 0 from pg_stat_activity where datname = '{name}'"))
        await owner.execute(f'alter database "{name}" rename to "{name}_away"')
        await refused_on_all_ways(replica, queue)
        await owner.execute(f'alter database "{name}_away" rename to "{name}"')
        await owner.execute(f'alter database "{name}" allow_connections true')
        await back_again(replica, queue, said)
    finally:
        await owner.close()


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A server that asks all but its owner for a password; there is a user app:first."""
    postgres = EmbeddedPostgres(tmp_path / "pg", bin_dir=pg_bin(), options={"fsync": "off"})
    await postgres.start()
    rules = postgres.directory.cluster / "pg_hba.conf"
    rules.write_text("local all sluice peer map=sluice\nlocal all all scram-sha-256\n")
    owner = await asyncpg.connect(postgres.dsn)
    await owner.execute("select pg_reload_conf()")
    await owner.execute("create role app superuser login password 'first'")
    await owner.close()
    yield postgres
    await postgres.stop()


@pytest.mark.ci
async def test_a_password_that_changes_under_a_replica_is_a_database_that_is_away_until_it_is_right(
    guarded: EmbeddedPostgres, start_replica: StartReplica, start_sluice: StartSluice, said: list[str]
) -> None:
    async with Proxy(guarded.dsn).serving() as proxy:
        replica = await start_replica(database_url=proxy.url_as("app:first"))
        queue = await Api(replica.client, replica.url).queue()
        owner = await asyncpg.connect(guarded.dsn)
        await owner.execute("alter role app password 'second'")
        await owner.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'")
        await refused_on_all_ways(replica, queue)
        await owner.execute("alter role app password 'first'")
        await back_again(replica, queue, said)
        await owner.close()
        for wrong in ("app:wrong", "app", "nobody:wrong"):
            with pytest.raises(SettingsError, match="rejected the connection"):
                await start_replica(database_url=proxy.url_as(wrong))
        process = await start_sluice(ready=False, SLUICE_DATABASE_URL=proxy.url_as("app:hunter2"))
        assert await process.ended() == 2
        assert process.lines == [
            'The database rejected the connection (InvalidPasswordError: password authentication failed for user "app"): '
            "check the user, password and database in SLUICE_DATABASE_URL."
        ]


async def test_a_start_with_no_encryption_key_that_fits_says_which_is_missing(start_replica: StartReplica) -> None:
    first, second = b"a" * 32, b"b" * 32
    await start_replica(encryption_key=base64.b64encode(first).decode())
    with pytest.raises(SettingsError) as wrong:
        await start_replica(encryption_key=base64.b64encode(second).decode())
    with pytest.raises(SettingsError) as missing:
        await start_replica()
    is_missing = f"The secrets in this database are encrypted with the key of fingerprint {fingerprint(first)}"
    assert wrong.value.lines == [
        f"{is_missing}, but SLUICE_ENCRYPTION_KEY has only {fingerprint(second)}: add that key to it."
    ]
    assert missing.value.lines == [f"{is_missing}, but SLUICE_ENCRYPTION_KEY is not set: add that key to it."]
