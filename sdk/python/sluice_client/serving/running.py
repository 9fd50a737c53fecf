"""Runs one delivery and says how it ended: the same for pushed and pulled tasks, and in tests."""

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from sluice_client.context import Context, Controls, Delivery
from sluice_client.outcomes import (
    Failed,
    Fatal,
    Outcome,
    Retry,
    RetryAfter,
    Skip,
    Skipped,
    Succeeded,
    bounded,
    error_text,
)
from sluice_client.serving.blocking import Timed
from sluice_client.serving.threads import Threads
from sluice_client.serving.tracing import traced
from sluice_client.tasks.faults import PayloadInvalid

if TYPE_CHECKING:
    from sluice_client.tasks.definitions import Definition

log = logging.getLogger("sluice_client.tasks")

THREADS = Threads(limit=40)
"""For sync functions, unless a worker brings its own: as many at once as Starlette has."""


async def run(
    definition: "Definition[Any]", delivery: Delivery, controls: Controls, threads: Threads = THREADS
) -> Outcome:
    """Run a task once. Every exception of the task becomes an outcome.

    A payload that does not fit, or a result, is final: the same bytes will not fit next time, and nobody wants the side effects
    of a function again because of what it returned. `asyncio.CancelledError` is raised again if this call is cancelled or
    `controls.cancelled` says so; one that the task raises by itself is a failure like any other. Exceptions that are no
    `Exception`, such as KeyboardInterrupt, pass through.
    """
    context = Context(delivery, controls)
    token = context.enter()
    try:
        with traced(definition.name, delivery) as failed:
            outcome = await _attempt(definition, context, controls, threads)
            if isinstance(outcome, (RetryAfter, Failed)):
                failed(outcome.error)
            return outcome
    finally:
        context.end()
        context.leave(token)


async def _attempt(definition: "Definition[Any]", context: Context, controls: Controls, threads: Threads) -> Outcome:
    name, delivery = definition.name, context.delivery
    try:
        return await _done(definition, context, threads)
    except PayloadInvalid as invalid:
        log.error("task %s %s is dead: %s", name, delivery.id, invalid)
        return Failed(bounded(str(invalid)), invalid.errors)
    except Fatal as fatal:
        log.warning("task %s %s is dead: %s", name, delivery.id, fatal.reason)
        return Failed(bounded(fatal.reason) or "Fatal")
    except Skip as skip:
        return Skipped(bounded(skip.reason))
    except Retry as retry:
        log.info("task %s %s asks to be tried again: %s", name, delivery.id, retry.reason)
        return RetryAfter(bounded(retry.reason) or "Retry", retry.after)
    except asyncio.CancelledError as error:
        if controls.cancelled or _is_cancelled():
            raise
        return _failure(name, delivery, error)
    except Exception as error:
        return _failure(name, delivery, error)


async def _done(definition: "Definition[Any]", context: Context, threads: Threads) -> Outcome:
    arguments = definition.arguments(context.delivery.payload)
    value = await _returned(definition, arguments, context, threads)
    return Succeeded(definition.encode(value), *context.followed)


async def _returned(definition: "Definition[Any]", arguments: Any, context: Context, threads: Threads) -> object:
    """Return what the function returns. At its deadline an async function is cancelled, unless it holds its task; a sync
    function can only be told."""
    if not definition.is_async:
        with _deadline(context, context.end):
            return await threads.call(partial(definition.call, arguments, context))
    running, cut = asyncio.current_task(), False

    def cut_off() -> None:
        nonlocal cut
        cut = True
        context.end()
        if running is not None:
            running.cancel()

    try:
        with _deadline(context, cut_off):
            return await Timed(_coroutine(definition.call(arguments, context)), definition.name)
    except asyncio.CancelledError:
        if not cut:
            raise
        raise TimeoutError(f"still running after {context.delivery.seconds:g} s") from None
    finally:
        if cut and sys.version_info >= (3, 11) and running is not None:
            running.uncancel()


@contextmanager
def _deadline(context: Context, call: Callable[[], None]) -> Iterator[None]:
    """Call this at the deadline, unless the block has ended or the task is held."""
    seconds = context.delivery.seconds
    if seconds is None:
        yield
        return
    timer = asyncio.get_running_loop().call_later(max(0.0, seconds), lambda: None if context.held else call())
    try:
        yield
    finally:
        timer.cancel()


def _coroutine(awaitable: Any) -> Coroutine[Any, Any, object]:
    if asyncio.iscoroutine(awaitable):
        return awaitable

    async def awaited() -> object:
        return await awaitable

    return awaited()


def _is_cancelled() -> bool:
    """Whether the asyncio task that this runs in has been asked to end. Before Python 3.11 nobody can tell."""
    running = asyncio.current_task()
    return sys.version_info >= (3, 11) and running is not None and running.cancelling() > 0


def _failure(name: str, delivery: Delivery, error: BaseException) -> RetryAfter:
    last = delivery.attempt >= delivery.max_attempts
    log.log(
        logging.ERROR if last else logging.WARNING,
        "task %s %s failed in attempt %d of %d",
        name,
        delivery.id,
        delivery.attempt,
        delivery.max_attempts,
        exc_info=error,
    )
    return RetryAfter(error_text(error))
