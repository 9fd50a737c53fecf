"""An event loop in a thread of its own, for what is mounted where there is none: WSGI, and Django's views."""

import asyncio
import logging
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")

log = logging.getLogger("sluice_client.serving")


class Background:
    """The loop starts with its first call, once per process: servers fork after they have loaded an application."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def call(self, coroutine: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Run a coroutine there, with this thread's context variables, and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._running()).result()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._process != os.getpid():
                self._loop, self._process = asyncio.new_event_loop(), os.getpid()
                threading.Thread(target=_run, args=(self._loop,), name="sluice-loop", daemon=True).start()
            return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    while True:
        try:
            loop.run_forever()
        except BaseException:  # a task that calls sys.exit() must not take the loop from all others
            log.exception("a task tried to end the process")


BACKGROUND = Background()
"""One for the whole process, so that connections and leases are shared."""
