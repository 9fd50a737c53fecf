"""Child processes that compile or check schemas: tenants share them in turns, and each request has a limit of processor time.

A request's time is charged to its tenant. While a tenant has used more than its allowance, its requests are refused.
"""

import asyncio
import math
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from app.domain.allowances import Allowance
from app.domain.errors import Refusal
from app.domain.turns import Turns
from app.runtime import schema_process
from app.runtime.schema_process import ENCODER, Reply, Request

PATIENCE_SECONDS = 30.0
"""Wall-clock limit: a process that has not answered by then is killed."""
TURN_SECONDS = 10.0
"""How long a request waits for its turn."""
MAX_WAITING = 100
"""How many requests of one tenant may wait for their turn."""
START_SECONDS = 0.2
"""Approximate processor time to start a process, charged to whoever ended the previous one."""

OVERDONE = frozenset({signal.SIGPROF, signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS})
"""Signals that end the process because of a request's time, memory or stack."""

_REPLY = msgspec.msgpack.Decoder(Reply)


@dataclass(slots=True)
class _Child:
    process: Process
    tenant: int
    """The tenant served last, whose schema may still be compiled there."""


class SchemaPool:
    """At most `places` processes, each started when first needed. A tenant uses one at a time."""

    def __init__(self, what: str, allowance: Allowance, *, places: int) -> None:
        self._turns = Turns(what, places=places, share=1, max_waiting=MAX_WAITING)
        self._allowance = allowance
        self._idle: list[_Child] = []
        self._busy: list[_Child] = []
        self._closed = False

    @property
    def processes(self) -> list[Process]:
        return [beside.process for beside in (*self._idle, *self._busy)]

    async def ask(self, request: Request) -> tuple[Reply | None, float]:
        """Return the reply and the processor time it took, in seconds. The reply is None if the request exceeded its time, memory
        or stack.

        Raises Refusal (unavailable).
        """
        self._require_open(request.tenant)
        async with self._turns.turn(request.tenant, patience_seconds=TURN_SECONDS):
            self._require_open(request.tenant)  # earlier requests may have used up the allowance
            beside = await self._take(request.tenant)
            self._busy.append(beside)
            reply, began = None, time.monotonic()
            try:
                reply = await _talk(beside.process, request)
            finally:
                self._busy.remove(beside)
                if reply is None:  # also if nobody waits any longer: the next request would read this reply as its own
                    _stop(beside.process)
                    used = min(request.seconds, time.monotonic() - began) + START_SECONDS
                else:
                    self._idle.append(beside)
                    used = reply.used_seconds
                self._allowance.take(request.tenant, used, time.monotonic())
            return reply, used

    def _require_open(self, tenant: int) -> None:
        if self._closed:
            raise _unavailable("this replica is shutting down; try again")
        if wait := self._allowance.wait_seconds(tenant, time.monotonic()):
            raise Refusal(
                "unavailable",
                f"this tenant's schemas have used up its processor time: {self._allowance}",
                retry_after_seconds=math.ceil(wait),
            )

    async def _take(self, tenant: int) -> _Child:
        self._idle = [beside for beside in self._idle if beside.process.returncode is None]
        if self._idle:
            beside = min(self._idle, key=lambda beside: beside.tenant != tenant)
            self._idle.remove(beside)
            beside.tenant = tenant
            return beside
        return _Child(await _started(), tenant)

    async def close(self) -> None:
        """End the processes. Waiting and later requests are refused."""
        self._closed = True
        for process in self.processes:
            _stop(process)
            await process.wait()


async def _started() -> Process:
    command = (sys.executable, "-P", "-m", schema_process.__name__)
    paths = os.pathsep.join(path for path in sys.path if path)
    try:
        return await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env={"PYTHONPATH": paths}
        )
    except OSError as error:
        raise _unavailable(str(error)) from None


async def _talk(process: Process, request: Request) -> Reply | None:
    assert process.stdin is not None and process.stdout is not None
    question = ENCODER.encode(request)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            try:
                process.stdin.write(len(question).to_bytes(4, "big") + question)
                await process.stdin.drain()
                size = int.from_bytes(await process.stdout.readexactly(4), "big")
                return _REPLY.decode(await process.stdout.readexactly(size))
            except (OSError, RuntimeError, asyncio.IncompleteReadError):  # uvloop raises RuntimeError for a closed pipe
                code = await process.wait()
                if -code not in OVERDONE:
                    raise _unavailable(f"it exited with {code}") from None
                return None
    except TimeoutError:
        raise _unavailable("it does not answer") from None


def _stop(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()


def _unavailable(why: str) -> Refusal:
    return Refusal("unavailable", f"the process that checks payloads is not available: {why}", retry_after_seconds=1)
