"""What a worker costs beyond the requests that it cannot do without: beside a loop by hand, on the same service."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from sluice_client import Sluice
from tests.sluices import SluiceProcess

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

TASKS = 400
CONCURRENCY = 8
PROMISED_SECONDS = 0.0002
"""What the documentation promises for each task; a busy machine gets ten times as much."""


async def test_the_overhead_of_a_worker_is_small(sluice: SluiceProcess) -> None:
    """In processor time of this process; the service is another one."""
    client = Sluice(sluice.url)
    done = 0

    @client.task(queue="work")
    async def double(n: int) -> int:
        nonlocal done
        done += 1
        if done == TASKS:
            worker.stop()
        return 2 * n

    worker = client.worker(queues=["work"], concurrency=CONCURRENCY)
    await client.queues.put("work")

    async def by_hand() -> None:
        left = TASKS
        async with httpx2.AsyncClient(base_url=sluice.url, trust_env=False, verify=False) as http:

            async def work(task: dict[str, Any]) -> None:
                headers = {"sluice-lease-token": task["lease_token"]}
                result = {"result": 2 * task["payload"]["n"]}
                (await http.post(f"/tasks/{task['id']}/complete", json=result, headers=headers)).raise_for_status()

            while left:
                asked = {"max_tasks": CONCURRENCY, "wait_seconds": 50, "lease_seconds": 60}
                tasks = (await http.post("/queues/work/leases", json=asked)).json()["tasks"]
                await asyncio.gather(*map(work, tasks))
                left -= len(tasks)

    async def cost(run: Callable[[], Awaitable[None]]) -> float:
        """Seconds for each task."""
        nonlocal done
        done = 0
        await client.dispatch_many([double.call(n) for n in range(TASKS)])
        before = time.process_time()
        await run()
        return (time.process_time() - before) / TASKS

    costs = [(await cost(by_hand), await cost(worker.run)) for _ in range(3)]
    hand, ours = (min(column) for column in zip(*costs, strict=True))
    await client.aclose()
    print(f"by hand {hand * 1000:.3f} ms, worker {ours * 1000:.3f} ms: {(ours - hand) * 1000:+.3f} ms for each task")
    assert ours - hand < 10 * PROMISED_SECONDS, (hand, ours)
