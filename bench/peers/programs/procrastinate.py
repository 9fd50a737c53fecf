"""python -m bench.peers.programs.procrastinate DSN HANDLER_URL"""

import asyncio
import logging
import sys
from typing import Any

import uvloop
from procrastinate import App, PsycopgConnector

from bench.peers.programs.peer import CONCURRENCY, PAYLOAD, client, deliver, enqueue_for, serve

POOL = 10


async def main(dsn: str, url: str) -> None:
    logging.getLogger("procrastinate").setLevel(logging.ERROR)
    app = App(connector=PsycopgConnector(conninfo=dsn, min_size=POOL, max_size=POOL))
    async with app.open_async(), client() as http:
        found = await app.connector.execute_query_one_async(
            "select to_regclass('procrastinate_jobs') is not null as is_there"
        )
        if not found["is_there"]:
            await app.schema_manager.apply_schema_async()

        async def job(payload: dict[str, Any]) -> None:
            await deliver(http, url, payload)

        task = app.task(name="deliver", queue="bench")(job)
        working: asyncio.Task[None] | None = None

        async def fill(jobs: int) -> None:
            for begin in range(0, jobs, 1000):
                await task.batch_defer_async(*[{"payload": PAYLOAD}] * min(1000, jobs - begin))

        async def enqueue(seconds: float) -> dict[str, Any]:
            return await enqueue_for(seconds, lambda: task.defer_async(payload=PAYLOAD))

        async def work() -> None:
            nonlocal working
            run = app.run_worker_async(
                queues=["bench"], concurrency=CONCURRENCY, install_signal_handlers=False, delete_jobs="successful"
            )
            working = asyncio.create_task(run)

        async def rest() -> None:
            assert working
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

        await serve({"fill": fill, "enqueue": enqueue, "work": work, "rest": rest})


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[2:]))
