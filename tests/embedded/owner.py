"""Owns an embedded Postgres as a sluice does, for tests that kill it: `owner.py DATA_DIR BIN_DIR`.

Prints one JSON line when the server is ready or refused, then supervises it until SIGTERM. Needs nothing but the
standard library, so that any user who can read this file and app/embedded can run it.
"""

import asyncio
import json
import signal
import sys
from pathlib import Path

from app.embedded.directory import EmbeddedError
from app.embedded.postgres import EmbeddedPostgres


async def main(data_dir: str, bin_dir: str) -> int:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    postgres = EmbeddedPostgres(Path(data_dir), bin_dir=Path(bin_dir))
    try:
        dsn = await postgres.start()
    except EmbeddedError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return 1
    print(json.dumps({"dsn": dsn, "pid": postgres.pid}), flush=True)
    supervisor = asyncio.create_task(postgres.supervise())
    await stop.wait()
    await postgres.stop()
    await supervisor
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
