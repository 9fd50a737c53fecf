"""Processes beside that compile or check: shared by tenants in turns, each request ended when its processor time is up.

What a request takes is charged to its tenant; while more was taken than the tenant may have, its requests are refused.
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
"""Of the clock: a process that has not answered by then is stopped."""
TURN_SECONDS = 10.0
"""How long a request waits for its turn."""
MAX_WAITING = 100
"""Requests of one tenant that wait for their turn."""
START_SECONDS = 0.2
"""About the processor time that a process takes to begin; whoever ended the one before is charged for it."""

OVERDONE = frozenset({signal.SIGPROF, signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS})
"""What ends the process for a request's sake: its time, its memory, its stack."""

_REPLY = msgspec.msgpack.Decoder(Reply)


@dataclass(slots=True)
class _Beside:
    process: Process
    tenant: int
    """Served last: it may have a schema of that tenant compiled."""


class SchemaPool:
    """At most `places` processes, each started when it is first needed; a tenant has one of them at a time."""

    def __init__(self, what: str, allowance: Allowance, *, places: int) -> None:
        self._turns = Turns(what, places=places, share=1, max_waiting=MAX_WAITING)
        self._allowance = allowance
        self._idle: list[_Beside] = []
        self._busy: list[_Beside] = []
        self._closed = False

    @property
    def processes(self) -> list[Process]:
        return [beside.process for beside in (*self._idle, *self._busy)]

    async def ask(self, request: Request) -> tuple[Reply | None, float]:
        """The reply, and the processor time it took. None: it took too long, or too much memory or stack, and was ended.

        Raises Refusal (unavailable).
        """
        self._require_open(request.tenant)
        async with self._turns.turn(request.tenant, patience_seconds=TURN_SECONDS):
            self._require_open(request.tenant)  # those before it may have used up what the tenant may have
            beside = await self._take(request.tenant)
            self._busy.append(beside)
            reply, began = None, time.monotonic()
            try:
                reply = await _talk(beside.process, request)
            finally:
                self._busy.remove(beside)
                if reply is None:  # also when nobody waits for it any more: the next would take it for its own
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

    async def _take(self, tenant: int) -> _Beside:
        self._idle = [beside for beside in self._idle if beside.process.returncode is None]
        if self._idle:
            beside = min(self._idle, key=lambda beside: beside.tenant != tenant)
            self._idle.remove(beside)
            beside.tenant = tenant
            return beside
        return _Beside(await _started(), tenant)

    async def close(self) -> None:
        """Whoever waits, or asks later, is refused."""
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
            except (OSError, RuntimeError, asyncio.IncompleteReadError):  # uvloop has RuntimeError for a closed pipe
                code = await process.wait()
                if -code not in OVERDONE:
                    raise _unavailable(f"it ended with {code}") from None
                return None
    except TimeoutError:
        raise _unavailable("it does not answer") from None


def _stop(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()


def _unavailable(why: str) -> Refusal:
    return Refusal("unavailable", f"the process that checks payloads is not available: {why}", retry_after_seconds=1)
