"""Threads for sync functions.

Not those of an executor: the interpreter waits for these at its end, so one function that does not return would keep a worker from
stopping. And not the event loop's default executor, whose number of threads has nothing to do with a worker's concurrency.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")
Job = tuple["Future[Any]", Callable[[], Any]]


class Threads:
    """Runs functions in up to `limit` daemon threads, which are started when they are needed. More functions wait for one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._lock = threading.Lock()
        self._started = self._busy = 0

    async def call(self, function: Callable[[], ResultT]) -> ResultT:
        """Return what the function returns, run in a thread with a copy of this context. If this is cancelled, the function
        goes on: a thread cannot be stopped."""
        future: Future[ResultT] = Future()
        context = copy_context()
        self._submit((future, lambda: context.run(_with_fresh_connections, function)))
        return await asyncio.shield(asyncio.wrap_future(future))

    def _submit(self, job: Job) -> None:
        if self._process != os.getpid():  # threads do not survive a fork
            self._reset()
        with self._lock:
            self._busy += 1
            if self._busy > self._started and self._started < self._limit:
                self._started += 1
                threading.Thread(target=self._work, name=f"sluice-{self._started}", daemon=True).start()
        self._jobs.put(job)

    def _work(self) -> None:
        while True:
            future, function = self._jobs.get()
            try:
                result = function()
            except (StopIteration, GeneratorExit) as error:
                future.set_exception(_as_runtime_error(error))
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            finally:
                with self._lock:
                    self._busy -= 1
            del future, function  # an idle thread keeps nothing alive


def _as_runtime_error(error: BaseException) -> RuntimeError:
    """Return what can leave a coroutine: one of these two would end it instead of failing it (PEP 479)."""
    failure = RuntimeError(f"the function raised {type(error).__name__}")
    failure.__cause__ = error
    return failure


def _with_fresh_connections(function: Callable[[], ResultT]) -> ResultT:
    """Run a function as Django runs a request: with database connections that have not outlived their CONN_MAX_AGE, or an error.

    A program may have imported Django without being a Django project.
    """
    database, conf = sys.modules.get("django.db"), sys.modules.get("django.conf")
    if database is None or conf is None or not conf.settings.configured:
        return function()
    database.close_old_connections()
    try:
        return function()
    finally:
        database.close_old_connections()
