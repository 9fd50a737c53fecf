"""The pull worker: takes tasks from its queues and runs them.

One fetcher per queue waits for tasks (a long poll); each task runs in an asyncio task of its own; leases are renewed by a timer
(leases.py). The worker outlives whatever happens to the service: it waits and asks again. What it has finished meanwhile it keeps
reporting as long as it holds the lease. It ends by a signal, by `stop()`, when its memory has grown too large, or when the service
says that it can never get tasks: a wrong key, a queue that does not exist.
"""

import asyncio
import logging
import random
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from time import monotonic
from typing import Any
from urllib.parse import quote

from sluice_client.context import Delivery
from sluice_client.errors import NotSluice, SluiceError
from sluice_client.outcomes import Outcome
from sluice_client.serving import deliveries
from sluice_client.serving.contact import Contact, pause, will_pass
from sluice_client.serving.leases import Lease, Leases, seconds_left
from sluice_client.serving.memory import parse_size, resident_bytes
from sluice_client.serving.routing import UNKNOWN_SECONDS, find, unknown
from sluice_client.serving.running import run
from sluice_client.serving.signals import handled
from sluice_client.serving.threads import Threads
from sluice_client.tasks.registry import Registry
from sluice_client.transport import Transport

MAX_TASKS = 100
"""How many tasks one request takes at most."""
WAIT_SECONDS = 50.0
"""How long a request waits for tasks: many proxies cut it at 60."""
ANSWER_SECONDS = 10.0
"""How long the answer may take beyond that."""
GATHER_SECONDS = 0.01
"""How long a worker with little room waits for more before it asks for tasks."""
MAX_GATHERINGS = 5
"""How many times it does so while outcomes are being reported: their places are free in a moment."""
LAST_ANSWER_SECONDS = 0.5
"""How long a worker that stops waits for the answer it has asked for: with tasks, it takes milliseconds."""
RELEASE_SECONDS = 5.0
"""How long the worker tries to give tasks back before it ends."""
MAX_PARKED = 100
"""How many tasks that nothing here knows are kept without taking the place of others."""
MEMORY_SECONDS = 1.0
"""How often the memory is looked at."""
MEMORY_EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: start me again."""

Leased = tuple[Mapping[str, Any], float]
"""A task, and how many seconds its lease had left when it came."""
Work = Callable[[Lease, Mapping[str, Any]], Coroutine[Any, Any, None]]

log = logging.getLogger("sluice_client.worker")


class MemoryLimitReached(SystemExit):
    """The worker's process uses more memory than it may. Not caught, it ends the process with exit code 75, and a supervisor
    starts a new one."""

    def __init__(self, used: int, limit: int) -> None:
        super().__init__(MEMORY_EXIT_CODE)
        self.used = used
        self.limit = limit

    def __str__(self) -> str:
        return f"the process uses {self.used} bytes of memory, more than its limit of {self.limit}"


class Worker:
    """Takes tasks from `queues` and runs up to `concurrency` of them at once.

    `memory_limit` (bytes, or text such as "512MB"): above it the worker finishes what it holds and ends with exit code 75.
    `lease_seconds`: how soon others get its tasks if the process dies; it must be longer than a restart of the service takes, or
    what was finished meanwhile runs again. `drain_seconds`: how long tasks may go on after SIGTERM before they are given back.
    Raises ValueError.
    """

    def __init__(
        self,
        transport: Transport,
        registry: Registry,
        queues: Sequence[str],
        *,
        concurrency: int = 8,
        memory_limit: str | int | None = None,
        lease_seconds: float = 60.0,
        drain_seconds: float = 25.0,
    ) -> None:
        if isinstance(queues, str) or not queues:
            raise ValueError('queues is a list of names: queues=["reports"]')
        if concurrency < 1 or lease_seconds < 3 or drain_seconds < 0:
            raise ValueError("concurrency is at least 1, lease_seconds at least 3, and drain_seconds at least 0")
        self.queues = tuple(dict.fromkeys(queues))
        self.concurrency = concurrency
        self.lease_seconds = lease_seconds
        self.drain_seconds = drain_seconds
        self.memory_limit = None if memory_limit is None else parse_size(memory_limit)
        self._transport = transport
        self._registry = registry
        self._threads = Threads(concurrency)
        self._free = concurrency
        self._parked = 0
        self._jobs: dict[asyncio.Task[None], Lease] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self) -> None:
        """Work until SIGTERM, SIGINT or `stop()`, and return when all tasks have ended or been given back.

        A second signal gives back at once what is still running. If this call is cancelled, it does the same.
        Raises MemoryLimitReached, and ApiError if the service says that this worker can get no tasks: Unauthenticated, Forbidden,
        NotFound (no such queue) or Conflict (its tasks are delivered to a handler).
        """
        self._loop = asyncio.get_running_loop()
        self._contact = Contact()
        self._leases = Leases(self._transport, self._contact)
        self._stopping, self._hurry = asyncio.Event(), asyncio.Event()
        self._room, self._much_room = asyncio.Event(), asyncio.Event()
        self._room_changed(0)
        log.info("worker takes tasks from %s, %d at once", ", ".join(self.queues), self.concurrency)
        try:
            with handled(self._signalled):
                failure = await self._take_tasks()
                await self._drain()
        finally:
            await self._give_back()
            await self._transport.aclose()
            log.info("worker has stopped")
        if failure is not None:
            raise failure

    def stop(self) -> None:
        """Take no more tasks, and let `run` return when those it holds have ended. May be called from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)

    def _signalled(self, name: str) -> None:
        if self._stopping.is_set():
            log.warning("%s once more: %d tasks are given back", name, len(self._jobs))
            self._hurry.set()
        else:
            log.info("%s: the worker takes no more tasks", name)
            self._stopping.set()

    async def _take_tasks(self) -> BaseException | None:
        """Return when the worker is to stop, with the exception that makes it stop, if it is one."""
        watching: list[asyncio.Future[BaseException | None]] = [
            asyncio.ensure_future(self._fetch(queue)) for queue in self.queues
        ]
        watching.append(asyncio.ensure_future(self._stopped()))
        if self.memory_limit is not None:
            watching.append(asyncio.ensure_future(self._outgrown(self.memory_limit)))
        try:
            ended, _ = await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stopping.set()
            await _end(watching)
        failure = next((reason for one in ended if (reason := one.exception() or one.result()) is not None), None)
        if failure is not None:
            log.error("the worker stops: %s", failure)
        return failure

    async def _stopped(self) -> BaseException | None:
        await self._stopping.wait()
        return None

    async def _outgrown(self, limit: int) -> BaseException | None:
        """Return when the process has become too large. (Raised here, it would end the event loop and every task at once.)"""
        while (used := resident_bytes()) <= limit:
            await asyncio.sleep(MEMORY_SECONDS)
        return MemoryLimitReached(used, limit)

    async def _fetch(self, queue: str) -> BaseException | None:
        """Take tasks from a queue for ever, as many as there is room for. Raises ApiError."""
        failures = 0
        while True:
            await self._room_for_some()
            asked = min(MAX_TASKS, max(1, self._free // len(self.queues)))
            began = monotonic()
            try:
                tasks = await self._answer(asyncio.ensure_future(self._lease(queue, asked)))
            except SluiceError as error:
                if not will_pass(error):
                    raise
                failures += 1
                self._contact.failed(error)
                await asyncio.sleep(pause(failures, error))
                continue
            failures = 0
            self._contact.reached()
            for task, left in tasks:
                self._start(task, left)
            if not tasks and monotonic() - began < 1:  # that replica is stopping
                await asyncio.sleep(random.uniform(0.5, 1.0))

    async def _room_for_some(self) -> None:
        """Return when there is room, preferably for most of what this worker can run: a request for each task would cost more
        than many a task."""
        await self._room.wait()
        if self._much_room.is_set():
            return
        gathering = asyncio.ensure_future(self._much_room.wait())
        try:
            for _ in range(MAX_GATHERINGS):
                await asyncio.wait((gathering,), timeout=GATHER_SECONDS)
                if gathering.done() or not any(lease.settling for lease in self._jobs.values()):
                    break
        finally:
            gathering.cancel()

    async def _answer(self, asking: "asyncio.Future[list[Leased]]") -> "list[Leased]":
        """Return the tasks of an answer. When the worker stops, what is on its way is given back at once."""
        try:
            await asyncio.wait((asking,))
        except asyncio.CancelledError:
            try:
                await asyncio.wait((asking,), timeout=LAST_ANSWER_SECONDS)
            finally:
                asking.cancel()  # the service gives no tasks to a caller that has gone
            await asyncio.wait((asking,))
            if not asking.cancelled() and asking.exception() is None:
                for task, left in asking.result():
                    self._hold(task, left, self._release)
            raise
        return asking.result()

    async def _lease(self, queue: str, max_tasks: int) -> "list[Leased]":
        """Return tasks, and how many seconds their leases have left."""
        response = await self._transport.request(
            "POST",
            f"/queues/{quote(queue, safe='')}/leases",
            json={"max_tasks": max_tasks, "wait_seconds": WAIT_SECONDS, "lease_seconds": self.lease_seconds},
            repeatable=False,
            timeout=WAIT_SECONDS + ANSWER_SECONDS,
        )
        try:
            tasks: list[Mapping[str, Any]] = response.json()["tasks"]
            # they end within milliseconds of each other, and reading a date costs more than anything else here
            left = seconds_left(min(task["lease_expires_at"] for task in tasks), response) if tasks else 0.0
        except (KeyError, TypeError, ValueError) as error:
            raise NotSluice(f"the response is not one of Sluice's: {error!r}", response.status_code) from None
        return [(task, left) for task in tasks]

    def _start(self, task: Mapping[str, Any], left: float) -> None:
        if self._free == 0:  # several queues had an answer at once
            self._hold(task, left, self._release)
            return
        if self._parked < MAX_PARKED and self._is_last_and_unknown(task):
            self._parked += 1
            self._hold(task, left, self._work).add_done_callback(self._unparked)
            return
        self._room_changed(-1)
        self._hold(task, left, self._work).add_done_callback(self._make_room)

    def _hold(self, task: Mapping[str, Any], left: float, work: Work) -> "asyncio.Task[None]":
        """Renew the lease of a task while this is done with it."""
        lease = Lease(self._leases, task["id"], task["lease_token"], self.lease_seconds)
        lease.has_left(left)
        self._leases.hold(lease)
        job = asyncio.get_running_loop().create_task(work(lease, task))
        self._jobs[job] = lease
        job.add_done_callback(self._ended)
        return job

    def _is_last_and_unknown(self, task: Mapping[str, Any]) -> bool:
        """Whether a task will be kept for a while only to be given back: meanwhile the others can run."""
        last: bool = task["attempt"] >= task["max_attempts"]
        return last and task["type"] is not None and self._registry.find(task["type"]) is None

    def _unparked(self, job: "asyncio.Task[None]") -> None:
        self._parked -= 1

    def _make_room(self, job: "asyncio.Task[None]") -> None:
        self._room_changed(+1)

    def _room_changed(self, change: int) -> None:
        self._free += change
        for event, wanted in ((self._room, 1), (self._much_room, (3 * self.concurrency + 3) // 4)):
            if self._free >= wanted:
                event.set()
            else:
                event.clear()

    def _ended(self, job: "asyncio.Task[None]") -> None:
        lease = self._jobs.pop(job)
        self._leases.forget(lease)  # whatever has happened: a task that nobody runs must not be kept from others
        if not job.cancelled() and (error := job.exception()) is not None:
            log.error("task %s could not be settled", lease.id, exc_info=error)

    async def _work(self, lease: Lease, task: Mapping[str, Any]) -> None:
        """Run a task, and report how it ended."""
        if lease.cancelled:  # before it has begun
            await self._leases.settle(lease, None)
            return
        delivery = deliveries.of_lease(task)
        definition = find(self._registry, delivery)
        if definition is None:
            await self._leases.settle(lease, await self._unknown(delivery))
            return
        running = asyncio.current_task()
        assert running is not None
        lease.on_lost = running.cancel
        outcome: Outcome | None
        try:
            outcome = await run(definition, delivery, lease, self._threads)
        except asyncio.CancelledError:
            if not lease.cancelled:
                raise
            if sys.version_info >= (3, 11):
                running.uncancel()
            outcome = None
        finally:
            lease.on_lost = None
        await self._leases.settle(lease, outcome)

    async def _unknown(self, delivery: Delivery) -> Outcome | None:
        """Return the outcome of a task that nothing here knows. Its last attempt is not spent on that: it is given back."""
        outcome = unknown(self._registry, delivery)
        log.error("task %s: %s", delivery.id, outcome.error)
        if delivery.attempt < delivery.max_attempts:
            return outcome
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((stopping,), timeout=UNKNOWN_SECONDS)
        finally:
            stopping.cancel()
        return None

    async def _release(self, lease: Lease, task: Mapping[str, Any]) -> None:
        await self._leases.settle(lease, None)

    async def _drain(self) -> None:
        """Let the tasks end, for as long as they may."""
        if not self._jobs:
            return
        log.info("%d tasks may go on for %.0f s", len(self._jobs), self.drain_seconds)
        hurry = asyncio.ensure_future(self._hurry.wait())
        until = monotonic() + self.drain_seconds
        try:
            while self._jobs and not hurry.done() and (left := until - monotonic()) > 0:
                await asyncio.wait((hurry, *self._jobs), timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurry.cancel()

    async def _give_back(self) -> None:
        """End what still runs, and give its tasks back: they are ready at once, and the attempt does not count.

        A function that goes on to its end all the same has its outcome reported. Threads cannot be ended: their functions are
        told by `ctx.cancelled`, and end with the process at the latest.
        """
        self._stopping.set()
        for job, lease in tuple(self._jobs.items()):
            lease.stopped = True
            if lease.on_lost is not None:
                job.cancel()
        if self._jobs:
            log.warning("%d tasks are given back", len(self._jobs))
            await asyncio.wait(tuple(self._jobs), timeout=RELEASE_SECONDS)
        for job, lease in tuple(self._jobs.items()):
            log.error("task %s is neither settled nor given back: it runs again when its lease ends", lease.id)
            job.cancel()
        if self._jobs:
            await asyncio.wait(tuple(self._jobs), timeout=RELEASE_SECONDS)
        for lease in self._jobs.values():
            log.error("task %s goes on although it was cancelled: the event loop cannot end before it does", lease.id)
        self._leases.close()


async def _end(futures: "Sequence[asyncio.Future[Any]]") -> None:
    """Cancel these, and return when they have ended. If this is cancelled, they are once more: they stop cleaning up."""
    for one in futures:
        one.cancel()
    try:
        await asyncio.wait(futures)
    except asyncio.CancelledError:
        for one in futures:
            one.cancel()
        await asyncio.wait(futures)
        raise


class SyncWorker:
    """A worker for a program without an event loop: it has one of its own while it runs. Takes what Worker takes."""

    def __init__(
        self,
        transport: Transport,
        registry: Registry,
        queues: Sequence[str],
        *,
        concurrency: int = 8,
        memory_limit: str | int | None = None,
        lease_seconds: float = 60.0,
        drain_seconds: float = 25.0,
    ) -> None:
        self._worker = Worker(
            transport,
            registry,
            queues,
            concurrency=concurrency,
            memory_limit=memory_limit,
            lease_seconds=lease_seconds,
            drain_seconds=drain_seconds,
        )

    def run(self) -> None:
        """Work until a signal or `stop()`. Raises what `Worker.run` raises."""
        asyncio.run(self._worker.run())

    def stop(self) -> None:
        """Take no more tasks, and let `run` return when those it holds have ended. Called from another thread."""
        self._worker.stop()
