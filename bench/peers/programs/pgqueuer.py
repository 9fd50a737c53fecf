"""python -m bench.peers.programs.pgqueuer DSN HANDLER_URL"""

import asyncio
import json
import logging
import sys
from typing import Any

import asyncpg
import uvloop
from pgqueuer import AsyncpgDriver, AsyncpgPoolDriver, Queries, QueueManager
from pgqueuer.models import Job

from bench.peers.programs.peer import PAYLOAD, client, deliver, enqueue_for, serve

BATCH = 500


async def main(dsn: str, url: str) -> None:
    logging.getLogger("pgqueuer").setLevel(logging.ERROR)
    body = json.dumps(PAYLOAD).encode()
    async with (
        asyncpg.create_pool(dsn, min_size=2, max_size=20, max_inactive_connection_lifetime=0) as pool,
        client() as http,
    ):
        queries = Queries(AsyncpgPoolDriver(pool))
        if not await queries.has_table("pgqueuer"):
            await queries.install()
        manager: QueueManager | None = None
        working: asyncio.Task[None] | None = None
        connection = await asyncpg.connect(dsn)

        async def job(job: Job) -> None:
            await deliver(http, url, json.loads(job.payload))

        async def fill(jobs: int) -> None:
            for begin in range(0, jobs, 1000):
                count = min(1000, jobs - begin)
                await queries.enqueue(["deliver"] * count, [body] * count, [0] * count)

        async def enqueue(seconds: float) -> dict[str, Any]:
            return await enqueue_for(seconds, lambda: queries.enqueue("deliver", body))

        async def work() -> None:
            nonlocal working, manager
            manager = QueueManager(Queries(AsyncpgDriver(connection)))
            manager.entrypoint("deliver")(job)
            working = asyncio.create_task(manager.run(batch_size=BATCH))

        async def rest() -> None:
            assert manager and working
            manager.shutdown.set()
            await working

        await serve({"fill": fill, "enqueue": enqueue, "work": work, "rest": rest})


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[2:]))
