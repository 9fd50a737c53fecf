"""Working out the times of schedules where it may take long: on threads of its own, in turns by tenant."""

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from app.domain.turns import Turns

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 2
"""A tenant has one at a time, so that there is one for another."""
MAX_WAITING = 20
"""Requests of one tenant that wait for their turn."""
TURN_SECONDS = 10.0


class Reckoning:
    """For one event loop. The threads that others share stay free: for firing, for metrics."""

    def __init__(self) -> None:
        self._turns = Turns("working out times of schedules", places=THREADS, share=1, max_waiting=MAX_WAITING)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="reckoning")

    async def work(self, tenant: Hashable, reckon: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What it returns or raises; Refusal (unavailable) when no turn comes."""
        async with self._turns.turn(tenant, patience_seconds=TURN_SECONDS):
            return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: reckon(*args, **kwargs))
