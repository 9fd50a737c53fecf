# ruff: noqa: ASYNC240 - the files looked at here are small and local
"""The embedded Postgres under real kills, second starts and awkward directories."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from app.embedded.directory import EmbeddedError
from app.embedded.postgres import EmbeddedPostgres, running_url
from tests.embedded.processes import Owner, alive, children_of, start_owner
from tests.support import pg_bin, poll

pytestmark = [pytest.mark.ci, pytest.mark.anyio]

# Recovery is tested with fsync off: what is killed here are processes, not machines.
FAST = {"fsync": "off"}


@pytest.fixture
async def make(furnish: Callable[[Path], Path]) -> AsyncIterator[Callable[..., EmbeddedPostgres]]:
    made: list[EmbeddedPostgres] = []

    def make(directory: Path, *, furnished: bool = True, **options: str) -> EmbeddedPostgres:
        if furnished:
            furnish(directory)
        made.append(EmbeddedPostgres(directory, bin_dir=pg_bin(), options={**FAST, **options}))
        return made[-1]

    yield make
    for postgres in made:
        await postgres.stop()


@pytest.fixture
def owners(furnish: Callable[[Path], Path]) -> Iterator[Callable[[Path], Owner]]:
    started: list[Owner] = []

    def start(directory: Path) -> Owner:
        started.append(start_owner(furnish(directory)))
        return started[-1]

    yield start
    for owner in started:
        owner.end()


async def ask(dsn: str, question: str) -> Any:
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def test_a_first_start_makes_a_database_and_a_second_finds_it(tmp_path: Path, make: Any) -> None:
    first = make(tmp_path / "new" / "data", furnished=False)
    dsn = await first.start()
    await ask(dsn, "create table kept as select 7 as n")
    await first.stop()
    second = make(tmp_path / "new" / "data")
    started = time.monotonic()
    assert await second.start() == dsn
    assert time.monotonic() - started < 3
    assert await ask(dsn, "select n from kept") == 7
    assert await ask(dsn, "select current_database()") == "sluice"


async def test_it_listens_on_a_private_socket_only_and_runs_durable_settings(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path / "data", bin_dir=pg_bin())
    dsn = await postgres.start()
    try:
        settings = {
            name: await ask(dsn, f"show {name}") for name in ("listen_addresses", "fsync", "synchronous_commit")
        }
        assert settings == {"listen_addresses": "", "fsync": "on", "synchronous_commit": "on"}
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "data" / "pg").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "data" / "postgres.log").stat().st_mode) == 0o600
        owner = Path(f"/proc/{postgres.pid}").stat().st_uid
        assert owner != 0
        # The kernel vouches for the caller, and only the user sluice runs as is admitted.
        hba = (tmp_path / "data" / "pg" / "pg_hba.conf").read_text()
        assert hba == "local all all peer map=sluice\n"
    finally:
        await postgres.stop()


async def test_stop_ends_every_process_and_gives_the_directory_back(tmp_path: Path, make: Any) -> None:
    postgres = make(tmp_path)
    await postgres.start()
    processes = [postgres.pid, *children_of(postgres.pid)]
    await postgres.stop()
    assert not [pid for pid in processes if alive(pid)]
    assert running_url(tmp_path) is None
    await make(tmp_path).start()


async def test_a_second_start_on_one_directory_names_the_first_and_says_how_to_join(
    tmp_path: Path, owners: Any
) -> None:
    first = owners(tmp_path)
    second = owners(tmp_path)
    assert f"pid {first.process.pid}" in second.error
    assert f"SLUICE_DATABASE_URL='{first.dsn}' SLUICE_PORT=8081 sluice up" in second.error
    assert running_url(tmp_path) == first.dsn
    assert await ask(first.dsn, "select 1") == 1


async def test_a_killed_owner_leaves_no_postgres_and_the_next_start_loses_nothing(tmp_path: Path, owners: Any) -> None:
    first = owners(tmp_path)
    await ask(first.dsn, "create table kept as select 7 as n")
    processes = [first.pid, *children_of(first.pid)]
    first.process.kill()
    second = owners(tmp_path)  # at once, while the first one's Postgres is still shutting down
    assert second.dsn == first.dsn
    assert await ask(second.dsn, "select n from kept") == 7
    assert not [pid for pid in processes if alive(pid)]
    # Clean, not crashed: the postmaster was asked to stop by the death of its parent.
    assert "automatic recovery" not in (tmp_path / "postgres.log").read_text()


async def test_a_killed_owner_and_postmaster_are_recovered_by_the_next_start(tmp_path: Path, owners: Any) -> None:
    first = owners(tmp_path)
    connection = await asyncpg.connect(first.dsn)
    await connection.execute("create table kept as select 7 as n")
    os.kill(first.process.pid, signal.SIGSTOP)  # its supervisor must not be faster
    os.kill(first.pid, signal.SIGKILL)
    first.process.kill()
    second = owners(tmp_path)
    assert await ask(second.dsn, "select n from kept") == 7
    connection.terminate()


async def test_a_killed_postmaster_is_started_again_under_the_same_address(tmp_path: Path, make: Any) -> None:
    postgres = make(tmp_path)
    dsn = await postgres.start()
    restarted = asyncio.Event()
    supervisor = asyncio.create_task(postgres.supervise(restarted.set))
    await ask(dsn, "create table kept as select 7 as n")
    for _ in range(3):
        killed = postgres.pid
        restarted.clear()
        os.kill(killed, signal.SIGKILL)
        async with asyncio.timeout(20):
            await restarted.wait()
        assert postgres.pid not in (None, killed)
        assert await ask(dsn, "select n from kept") == 7
    await postgres.stop()
    async with asyncio.timeout(5):
        await supervisor


async def test_a_killed_backend_ends_connections_and_the_server_recovers_by_itself(tmp_path: Path, make: Any) -> None:
    postgres = make(tmp_path)
    dsn = await postgres.start()
    connection = await asyncpg.connect(dsn)
    pid = await connection.fetchval("select pg_backend_pid()")
    before = postgres.pid
    os.kill(pid, signal.SIGKILL)

    async def answers() -> bool:
        try:
            return await ask(dsn, "select true")
        except (OSError, asyncpg.PostgresError):
            return False

    await poll(connection.is_closed)
    await poll(answers)
    assert postgres.pid == before


async def test_backends_without_a_postmaster_do_not_block_the_next_start(
    tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.embedded.postgres.HELP_AFTER_SECONDS", 0.3)
    first = make(tmp_path)
    dsn = await first.start()
    connection = await asyncpg.connect(dsn)
    backend = await connection.fetchval("select pg_backend_pid()")
    os.kill(backend, signal.SIGSTOP)  # as one that computes and does not look up
    os.kill(first.pid, signal.SIGKILL)
    await first.wait_died()
    async with asyncio.timeout(20):
        await first.restart()
    assert await ask(dsn, "select 1") == 1
    assert not alive(backend)
    connection.terminate()


async def test_a_pid_file_that_names_a_stranger_does_not_block_the_start(tmp_path: Path, make: Any) -> None:
    first = make(tmp_path)
    await first.start()
    cluster = tmp_path / "pg"
    left = (cluster / "postmaster.pid").read_text().split("\n")
    os.kill(first.pid, signal.SIGKILL)
    await first.wait_died()
    await first.stop()
    for stranger in (os.getpid(), 1):
        (cluster / "postmaster.pid").write_text("\n".join([str(stranger), *left[1:]]))
        (cluster / ".s.PGSQL.5432.lock").write_text("\n".join([str(stranger), *left[1:]]))
        again = make(tmp_path)
        assert await ask(await again.start(), "select 1") == 1
        await again.stop()


async def test_a_start_killed_while_it_makes_the_cluster_leaves_no_half_of_one(tmp_path: Path) -> None:
    process = start_owner(tmp_path, wait=False).process
    await poll((tmp_path / "pg.new" / "base").exists, every_seconds=0.001)
    process.kill()
    process.wait()
    assert not (tmp_path / "pg").exists()
    owner = start_owner(tmp_path)
    assert await ask(owner.dsn, "select 1") == 1
    assert not (tmp_path / "pg.new").exists()
    owner.end()


async def test_a_path_too_long_for_a_socket_gets_a_short_private_link(tmp_path: Path, make: Any) -> None:
    directory = tmp_path / ("long" * 30) / "a,b c"
    directory.mkdir(parents=True, mode=0o700)
    postgres = make(directory)
    dsn = await postgres.start()
    assert await ask(dsn, "select 1") == 1
    link = Path(dsn.split("host=")[1].split("&")[0])
    assert link.is_symlink() and stat.S_IMODE(link.parent.stat().st_mode) == 0o700
    await postgres.stop()
    assert not link.parent.exists()


async def test_the_log_is_cut_before_it_fills_the_disk(
    tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.embedded.directory.LOG_MAX_BYTES", 1000)
    postgres = make(tmp_path)
    await postgres.start()
    (tmp_path / "postgres.log").write_bytes(b"x" * 1500)
    postgres.directory.rotate_log()
    assert (tmp_path / "postgres.log").stat().st_size == 0
    assert (tmp_path / "postgres.log.1").stat().st_size == 500


async def refusal(postgres: EmbeddedPostgres) -> str:
    with pytest.raises(EmbeddedError) as caught:
        await postgres.start()
    return str(caught.value)


async def test_a_directory_of_another_major_version_is_refused(tmp_path: Path, make: Any) -> None:
    postgres = make(tmp_path)
    (tmp_path / "pg" / "PG_VERSION").write_text("14\n")
    said = await refusal(postgres)
    assert "created by PostgreSQL 14" in said and "SLUICE_DATABASE_URL" in said


async def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path, make: Any) -> None:
    (tmp_path / "file").touch()
    assert "is not a directory" in await refusal(make(tmp_path / "file", furnished=False))
    assert "is not a directory" in await refusal(make(tmp_path / "file" / "below", furnished=False))


async def test_a_directory_that_others_may_write_is_refused(tmp_path: Path, make: Any) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    said = await refusal(make(tmp_path / "open"))
    assert f"chmod go-w {tmp_path}/open" in said


async def test_a_cluster_that_others_may_read_is_refused(tmp_path: Path, make: Any) -> None:
    postgres = make(tmp_path)
    (tmp_path / "pg").chmod(0o755)
    assert f"chmod 700 {tmp_path}/pg" in await refusal(postgres)


async def test_something_else_in_place_of_the_cluster_is_refused(tmp_path: Path, make: Any) -> None:
    (tmp_path / "pg").mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(tmp_path / "pg", 65534, 65534)
    assert "is not a database cluster" in await refusal(make(tmp_path))


@pytest.mark.parametrize(
    ("says", "then"),
    [
        ("could not write to file: No space left on device", "No space left for"),
        ("initdb: error: it is Tuesday", "it is Tuesday"),
    ],
)
async def test_a_failing_initdb_is_told_in_its_own_words(tmp_path: Path, public: Path, says: str, then: str) -> None:
    for name, line in (("initdb", f"echo '{says}' >&2; exit 1"), ("postgres", "echo 'postgres (PostgreSQL) 18.6'")):
        (public / name).write_text(f"#!/bin/sh\n{line}\n")
        (public / name).chmod(0o755)
    assert then in await refusal(EmbeddedPostgres(tmp_path / "data", bin_dir=public))
    assert not (tmp_path / "data" / "pg").exists()


async def test_a_setting_the_server_refuses_is_told_with_the_end_of_its_log(tmp_path: Path, make: Any) -> None:
    said = await refusal(make(tmp_path, max_connections="many"))
    assert "postgres.log" in said and "max_connections" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path, make: Any) -> None:
    (tmp_path / "fixed").mkdir(mode=0o500)
    assert "cannot be used by user" in await refusal(make(tmp_path / "fixed", furnished=False))


def test_the_launcher_does_not_start_what_would_be_an_orphan() -> None:
    """The caller died before the launcher could ask for the death signal: its parent is another by now."""
    launcher = Path(sys.modules[EmbeddedPostgres.__module__].__file__ or "").with_name("launcher.py")
    words = [str(os.getuid() or 65534), str(os.getgid() or 65534), str(os.getpid() + 1), "2", "/bin/echo", "alive"]
    ended = subprocess.run([sys.executable, str(launcher), *words], capture_output=True, text=True)
    assert ended.returncode == 1 and ended.stdout == "" and "is gone" in ended.stderr
