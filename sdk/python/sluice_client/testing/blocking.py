"""Awaits something from code that does not run in an event loop, or must not give it up."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import TypeVar

ResultT = TypeVar("ResultT")


def block_on(started: Callable[[], Awaitable[ResultT]]) -> ResultT:
    """Await what this returns, in a thread and an event loop of its own, and return its result.

    A loop of its own works wherever it is called from: in a test without a loop, in a task's thread, and in sync code that an
    event loop is running.
    """
    found: list[ResultT] = []
    errors: list[BaseException] = []
    context = copy_context()

    async def awaited() -> ResultT:
        return await started()

    def run() -> None:
        try:
            found.append(context.run(asyncio.run, awaited()))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="sluice-test")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return found[0]
