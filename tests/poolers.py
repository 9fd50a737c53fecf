"""Debian's PgBouncer, in front of the server that tests share."""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import asyncpg

from tests.support import poll

PORT = 6432
PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextlib.asynccontextmanager
async def pgbouncer(url: str, mode: str, **settings: str) -> AsyncIterator[str]:
    """The address of `url` through a PgBouncer in this pool mode, with Debian's settings beside these."""
    assert PROGRAM is not None, "apt-get install pgbouncer"
    parts = urlsplit(url)
    server = parse_qs(parts.query)["host"][0]
    folder = Path(tempfile.mkdtemp(prefix="sluice-pooler-", dir="/tmp"))
    given = {
        "pool_mode": mode,
        "max_client_conn": "200",
        "auth_type": "trust",
        "auth_file": str(folder / "users"),
        "listen_port": str(PORT),
        "unix_socket_dir": str(folder),
        **settings,
    }
    lines = [
        "[databases]",
        f"* = host={server} port=5432",
        "[pgbouncer]",
        *(f"{key} = {value}" for key, value in given.items()),
    ]
    (folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
    (folder / "users").write_text(f'"{parts.username}" ""\n')
    as_root = os.geteuid() == 0  # it does not run as root
    if as_root:
        shutil.chown(folder, "nobody")
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            PROGRAM, *(["-u", "nobody"] if as_root else []), str(folder / "pgbouncer.ini"), stdout=log, stderr=log
        )
    pooled = f"postgresql://{parts.username}@{parts.path}?host={quote(str(folder), safe='')}&port={PORT}"

    async def answers() -> bool:
        assert process.returncode is None, (folder / "log").read_text()
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await (await asyncpg.connect(pooled, statement_cache_size=0)).close()
            return True
        return False

    try:
        await poll(answers)
        yield pooled
    finally:
        process.kill()
        await process.wait()
        shutil.rmtree(folder)
