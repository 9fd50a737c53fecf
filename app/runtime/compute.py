"""Computing the times of schedules when that may take long: on dedicated threads, with tenants taking turns."""

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from app.domain.turns import Turns

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 2
"""A tenant uses one at a time, so that one is left for others."""
MAX_WAITING = 20
"""How many requests of one tenant may wait for their turn."""
TURN_SECONDS = 10.0


class ComputePool:
    """Dedicated threads for one event loop, so that the shared ones stay free for firing and metrics."""

    def __init__(self) -> None:
        self._turns = Turns("working out times of schedules", places=THREADS, share=1, max_waiting=MAX_WAITING)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="compute")

    async def run(self, tenant: Hashable, compute: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `compute` on a thread and return its result. Raises what it raises; Refusal (unavailable) if no turn comes."""
        async with self._turns.turn(tenant, patience_seconds=TURN_SECONDS):
            return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: compute(*args, **kwargs))
