"""What the process of a service weighs, and whether that stays the same."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from bench import filling
from bench.figures import slope
from bench.ground import HANDLER, QUEUE, Ground
from bench.processes import Child
from bench.subject import Subject

IN_FLIGHT = 64
SOAK_SHARE = 0.8
SAMPLE_SECONDS = 0.5
REST_SECONDS = 3.0
"""Until a connection to the handler has been idle for so long that it will not be used again."""
WARM_SHARE, END_SHARE = 0.25, 0.9
"""Of a soak, the part in which growth counts: before, caches, pools and histograms fill; after, the load has ended."""


class Weights:
    """Memory, file descriptors and threads of a process and its children, by time."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.memory_mb: list[float] = []
        self.descriptors: list[int] = []
        self.threads: list[int] = []

    @contextlib.asynccontextmanager
    async def of(self, child: Child) -> AsyncIterator[None]:
        """Take samples meanwhile, and one at the end."""

        async def sample() -> None:
            while True:
                self._take(child)
                await asyncio.sleep(SAMPLE_SECONDS)

        sampling = asyncio.create_task(sample())
        try:
            yield
            self._take(child)
        finally:
            sampling.cancel()

    def _take(self, child: Child) -> None:
        self.times.append(time.monotonic())
        self.memory_mb.append(child.resident_mb())
        self.descriptors.append(child.descriptors())
        self.threads.append(child.threads())


async def memory(ground: Ground) -> dict[str, Any]:
    """The most that a service holds while it delivers with 64 calls in flight, first without a backlog, then with one."""
    size = ground.size
    async with ground.subject() as subject:
        await subject.queue(QUEUE, HANDLER, max_concurrency=IN_FLIGHT)
        plain, behind = Weights(), Weights()
        async with plain.of(subject.child):
            await ground.way(subject)
        await subject.close(HANDLER)
        await filling.ready_tasks(subject, size.ready)
        async with behind.of(subject.child):
            await subject.open(HANDLER)
            await asyncio.sleep(size.load_seconds)
        await subject.close(HANDLER)
        left = await subject.database.fetchval("select count(*) from sluice.tasks where lease_token is null")
    return {"plain_mb": max(plain.memory_mb), "behind_mb": max(behind.memory_mb), "ready": size.ready, "left": left}


async def soak(ground: Ground) -> dict[str, Any]:
    """At 80 % of the rate that the service can drain: what grows."""
    size = ground.size
    weights = Weights()
    async with ground.subject(path="/stamp") as subject:
        top = await ground.paced(subject, size.load_seconds)
        before = await _descriptors_at_rest(ground, subject)
        async with weights.of(subject.child):
            paced = await ground.paced(subject, size.soak_seconds, SOAK_SHARE * top["per_second"])
        after = await _descriptors_at_rest(ground, subject)
    counted = slice(int(len(weights.times) * WARM_SHARE), int(len(weights.times) * END_SHARE) + 1)
    minutes = [moment / 60 for moment in weights.times[counted]]
    megabytes = weights.memory_mb[counted]
    threads = _fewest(weights.threads[counted])
    return {
        "seconds": size.soak_seconds,
        "rate": paced["per_second"],
        "backlog_thirds": paced["backlog_thirds"],
        "start_delay": paced["start_delay"],
        "memory_mb": megabytes[-1],
        "memory_mb_per_minute": slope(minutes, megabytes),
        "descriptors": (before, after),
        "more_descriptors": after - before,
        "loaded_descriptors": _fewest(weights.descriptors[counted]),
        "threads": threads,
        "more_threads": threads[1] - threads[0],
        "memory_samples": megabytes,
    }


async def _descriptors_at_rest(ground: Ground, subject: Subject) -> int:
    """How many are open beside one connection to the handler. Under load there are as many of these as there were calls at once in
    the last seconds, so only here does one show that is never closed."""
    await asyncio.sleep(REST_SECONDS)
    await subject.start_delays(QUEUE, 1, ground.reports)  # which closes the idle ones
    return subject.child.descriptors()


def _fewest(samples: Sequence[int]) -> tuple[int, int]:
    """The fewest in the first third, and in the last."""
    third = max(1, len(samples) // 3)
    return min(samples[:third]), min(samples[-third:])
