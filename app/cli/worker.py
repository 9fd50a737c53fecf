"""A pull worker: leases tasks, runs a command for each, renews the leases, and settles the tasks."""

import asyncio
import signal
import sys
import time
from base64 import b64decode
from collections.abc import Coroutine
from datetime import datetime
from random import random
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from app.cli.client import NEXT
from app.cli.failures import Failure
from app.cli.screen import plain
from app.cli.worker_command import Command, verdict
from app.domain.plurals import counted
from sluice_client import ApiError, NotSluice, SluiceError, Transport

WAIT_SECONDS = 30.0
REQUEST_SECONDS = 10.0
MAX_TAKEN = 100
MAX_PAUSE_SECONDS = 15.0
HURRY_SECONDS = 5.0
"""How long a release is tried after a second signal."""
INTERRUPTED = 130

T = TypeVar("T")


class Leased(msgspec.Struct):
    id: str
    queue: str
    type: str | None
    attempt: int
    lease_token: str
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """As it was enqueued, byte for byte."""
    payload_base64: str = ""
    """Instead of `payload`."""

    @property
    def body(self) -> bytes:
        given = self.payload
        return b64decode(self.payload_base64) if isinstance(given, msgspec.UnsetType) else bytes(given)


class _Leases(msgspec.Struct):
    tasks: list[Leased]


class Lease:
    """A lease and its token. `until` is a monotonic time at which the lease has certainly ended."""

    def __init__(self, transport: Transport, task: Leased, seconds: float) -> None:
        self._transport = transport
        self._path = f"/tasks/{task.id}/"
        self._headers = {"sluice-lease-token": task.lease_token}
        self._seconds = seconds
        self.until = time.monotonic() + seconds

    async def keep(self) -> str:
        """Renew the lease until it is lost; returns the error code that says so."""
        pause = self._seconds / 3
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            if began >= self.until:
                return "lease_lost"
            fault = await self._say("renew", {"seconds": self._seconds}, min(self._seconds / 3, self.until - began))
            if fault is None:
                self.until = began + self._seconds
                pause = self._seconds / 3
            elif passing(fault):
                pause = max(0.0, min(self._seconds / 10, self.until - time.monotonic()))
            else:
                return code_of(fault)

    async def settle(self, verb: str, body: dict[str, Any]) -> str | None:
        """Settle, trying again while the lease may last. Returns None once it is recorded, otherwise the error code."""
        pause = 0.1
        while True:
            fault = await self._say(verb, body, REQUEST_SECONDS)
            if fault is None:
                return None
            if not passing(fault):
                return code_of(fault)
            if time.monotonic() + pause >= self.until:
                return "lease_lost"
            await asyncio.sleep(pause)
            pause = min(2 * pause, 2.0)

    def hurry(self) -> None:
        self.until = min(self.until, time.monotonic() + HURRY_SECONDS)

    async def _say(self, verb: str, body: dict[str, Any], seconds: float) -> SluiceError | None:
        """Return what kept it from being recorded; None if nothing did."""
        content, path = msgspec.json.encode(body), self._path + verb
        try:
            # repeated by the caller, which knows how long the lease lasts
            await self._transport.request(
                "POST", path, repeatable=False, content=content, headers=self._headers, timeout=seconds
            )
        except SluiceError as error:
            return error
        return None


class Worker:
    def __init__(
        self,
        transport: Transport,
        queue: str,
        line: str,
        concurrency: int,
        lease_seconds: float,
        memory_mb: int | None,
    ) -> None:
        self._transport = transport
        self._queue = queue
        self._line = line
        self._concurrency = concurrency
        self._lease_seconds = lease_seconds
        self._memory_mb = memory_mb
        self._jobs: set[asyncio.Task[None]] = set()
        self._leases: set[Lease] = set()
        self._stop = asyncio.Event()
        """Take no more tasks."""
        self._abort = asyncio.Event()
        """Give back running tasks."""

    async def run(self) -> int:
        """Work until SIGTERM or SIGINT. The first one waits for running commands, a second one kills them.

        Raises Failure if the service will not lease tasks, however often it is asked.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        say(f"working on queue {self._queue} at {self._transport.url}, {self._concurrency} at a time")
        try:
            await self._take()
        finally:
            if self._jobs:
                await asyncio.wait(self._jobs)
        return INTERRUPTED if self._abort.is_set() else 0

    def _signalled(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            say(f"stopping: waiting for {counted(len(self._jobs), 'command')}; a second signal gives their tasks back")
            return
        self._abort.set()
        for lease in self._leases:
            lease.hurry()

    async def _take(self) -> None:
        faults = 0
        while not self._stop.is_set():
            free = self._concurrency - len(self._jobs)
            if free == 0:
                await unless(self._stop, asyncio.wait(self._jobs, return_when=asyncio.FIRST_COMPLETED))
                continue
            began = time.monotonic()
            try:
                taken = await unless(self._stop, self._lease(free))
            except SluiceError as error:
                if not passing(error):
                    raise failure_of(error) from None
                faults += 1
                pause = min(MAX_PAUSE_SECONDS, 0.5 * 2 ** min(faults, 10)) * (0.5 + random() / 2)
                say(f"cannot get tasks, trying again in {pause:.0f} s: {error}")
                await unless(self._stop, asyncio.sleep(pause))
                continue
            faults = 0
            for task in taken or ():
                job = asyncio.create_task(self._work(task))
                self._jobs.add(job)
                job.add_done_callback(self._jobs.discard)
            if not taken and time.monotonic() - began < 1:  # an early response: that replica is stopping
                await unless(self._stop, asyncio.sleep(0.5 + random() / 2))

    async def _lease(self, free: int) -> list[Leased]:
        """Lease up to `free` tasks. Raises SluiceError."""
        body = {"max_tasks": min(free, MAX_TAKEN), "wait_seconds": WAIT_SECONDS, "lease_seconds": self._lease_seconds}
        path = f"/queues/{quote(self._queue, safe='')}/leases"
        reply = await self._transport.request(
            "POST", path, repeatable=False, json=body, timeout=WAIT_SECONDS + REQUEST_SECONDS
        )
        try:
            return msgspec.json.decode(reply.content, type=_Leases).tasks
        except msgspec.DecodeError:
            raise Failure(f"{self._transport.url} does not respond as Sluice does") from None

    async def _work(self, task: Leased) -> None:
        lease = Lease(self._transport, task, self._lease_seconds)
        self._leases.add(lease)
        name, began = f"task {task.id} attempt {task.attempt}", time.monotonic()
        try:
            command = await Command.start(self._line, task.body, variables(task), self._memory_mb)
        except OSError as error:
            say(f"{name}: the command cannot be started: {error}")
            await lease.settle("fail", {"error": f"the command cannot be started: {error}"})
        else:
            how = await self._see_through(command, lease)
            say(f"{name}: {how}, {time.monotonic() - began:.1f} s")
        finally:
            self._leases.discard(lease)

    async def _see_through(self, command: Command, lease: Lease) -> str:
        ending = asyncio.create_task(command.ended())
        keeping = asyncio.create_task(lease.keep())
        aborting = asyncio.create_task(self._abort.wait())
        try:
            await asyncio.wait((ending, keeping, aborting), return_when=asyncio.FIRST_COMPLETED)
            if ending.done():
                verb, body = verdict(ending.result())
                keeping.cancel()
                lost = await lease.settle(verb, body)
                how = "completed" if verb == "complete" else body["error"].partition(":")[0]
                return how if lost is None else f"{how}, not recorded: {lost}"
            if keeping.done():
                await command.stop()
                await ending
                return f"killed: {keeping.result()}"
            keeping.cancel()
            command.signal(signal.SIGKILL)
            await ending
            lost = await lease.settle("release", {})
            return "killed and given back" if lost is None else f"killed, not given back: {lost}"
        finally:
            keeping.cancel()
            aborting.cancel()


def variables(task: Leased) -> dict[str, str]:
    return {
        "SLUICE_TASK_ID": task.id,
        "SLUICE_TASK_TYPE": task.type or "",
        "SLUICE_TASK_ATTEMPT": str(task.attempt),
        "SLUICE_TASK_QUEUE": task.queue,
    }


async def unless(event: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of the work, or None if the event came first; the work is then cancelled."""
    working, waiting = asyncio.ensure_future(work), asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        waiting.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait((working,))


def passing(error: SluiceError) -> bool:
    """Whether another try may succeed: nothing came, or "not now", or a proxy spoke in place of Sluice."""
    if isinstance(error, (ApiError, NotSluice)):
        return error.status >= 500 or error.status in (200, 408, 429)
    return True


def code_of(error: SluiceError) -> str:
    return error.code if isinstance(error, ApiError) else str(error)


def failure_of(error: SluiceError) -> Failure:
    if not isinstance(error, ApiError):
        return Failure(str(error))
    text = f"{error.code}: {error.detail}"
    return Failure(f"{text}\nNext: {NEXT[error.code]}." if error.code in NEXT else text)


def say(line: str) -> None:
    print(f"{datetime.now().astimezone():%H:%M:%S} {plain(line)}", file=sys.stderr, flush=True)
