"""What rows that are not in the way cost: idle queues, delayed tasks, history."""

import asyncio
import collections
import time
from typing import Any

from bench import filling
from bench.ground import Ground
from bench.processes import cpu_seconds
from bench.subject import Subject

SETTLE_SECONDS = 3.0
SHOWN = 8


async def idle(ground: Ground) -> dict[str, Any]:
    """End to end beside many idle queues and many delayed tasks, and beside none; then what a service costs that does nothing."""
    size = ground.size
    async with ground.subject() as full:
        await filling.idle_queues(full, size.idle_queues)
        await filling.delayed_tasks(full, size.delayed, size.idle_queues)
        async with ground.subject() as empty:
            rates = await ground.rounds(
                lambda: ground.way(empty), lambda: ground.way(full), size.rounds, ("none", "with")
            )
        cost = await idle_cost(ground, full, size.idle_seconds)
    return {"queues": size.idle_queues, "delayed": size.delayed, "end_to_end": rates, "idle": cost}


async def idle_cost(ground: Ground, subject: Subject, seconds: float) -> dict[str, Any]:
    """Shares of a core, and statements/s, of one replica and of the whole server."""
    await subject.database.execute("vacuum (analyze) sluice.tasks")
    database = await subject.database.fetchval("select current_database()")
    log = ground.statements
    async with log.on():
        await asyncio.sleep(SETTLE_SECONDS if ground.size.warmed else 0)
        log.taken(database)
        pids = {"service": subject.child.process.pid, "postgres": ground.postgres.pid or 0}
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        began = time.monotonic()
        await asyncio.sleep(seconds)
        took = time.monotonic() - began
        shares = {f"{name}_share": (cpu_seconds(pid) - before[name]) / took for name, pid in pids.items()}
        statements = log.taken(database)
    often = collections.Counter(statement.text[:80] for statement in statements)
    return {
        **shares,
        "statements_per_second": len(statements) / took,
        "seconds": took,
        "statements": dict(often.most_common(SHOWN)),
    }
