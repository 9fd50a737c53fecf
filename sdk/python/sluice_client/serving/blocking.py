"""Finds tasks that block the event loop: each step of an async function is timed, from where it is resumed to its next await."""

import logging
from collections.abc import Coroutine, Generator
from time import perf_counter
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")

BLOCKED_SECONDS = 0.5
"""From here on a step is told of. While one runs, nothing else does: no other task, and no lease is renewed."""

log = logging.getLogger("sluice_client.tasks")


class Timed:
    """Awaits a coroutine, and warns when it has held the event loop for too long."""

    def __init__(self, coroutine: Coroutine[Any, Any, ResultT], task: str) -> None:
        self._coroutine = coroutine
        self._task = task

    def __await__(self) -> Generator[Any, Any, Any]:
        """Resume the coroutine as `yield from` would (PEP 380), with a clock around each step."""
        resume, sent = self._coroutine.send, None
        while True:
            begun = perf_counter()
            try:
                future = resume(sent)
            except StopIteration as stop:
                return stop.value
            except GeneratorExit as error:  # the task's own; it would pass for the end of this coroutine
                raise RuntimeError("the function raised GeneratorExit") from error
            finally:
                seconds = perf_counter() - begun
                if seconds > BLOCKED_SECONDS:
                    _warn(self._task, seconds)
            resume = self._coroutine.send
            try:
                sent = yield future
            except GeneratorExit:
                self._coroutine.close()
                raise
            except BaseException as error:
                resume, sent = self._coroutine.throw, error


def _warn(task: str, seconds: float) -> None:
    log.warning(
        "task %s blocked the event loop for %.2f s: meanwhile no other task ran and no lease was renewed. "
        "Make it a plain function (def), which runs in a thread, or move the slow part to asyncio.to_thread",
        task,
        seconds,
    )
