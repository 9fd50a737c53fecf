"""Checking payloads against the schemas of queues, without holding up whoever else is served.

What a schema promises to do quickly is done at once; all else by a process beside, one request at a time, each ended when its
processor time is up.
"""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import OrderedDict
from contextlib import suppress

import msgspec

from app.domain.errors import FieldError, Refusal
from app.domain.schema_bounds import SATURATED, find_bounds
from app.domain.schemas import Checked, compile_schema, mismatch, schema_value, violations
from app.service import schema_process
from app.service.schema_process import ENCODER, Request

INLINE_UNITS = 20_000
"""A few milliseconds at most."""
INLINE_ERROR_UNITS = 1_000
"""Naming an error costs more than finding that there is one."""
COMPILE_SECONDS = 0.5
CHECK_SECONDS = 2.0
"""Of processor time; more than compiling, which may have to be done again."""
PATIENCE_SECONDS = 30.0
"""Of the clock: a process that has not answered by then is stopped."""
MAX_KEPT = 500
MAX_WAITING = 200

OVERDONE = frozenset({signal.SIGPROF, signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS})
"""What ends the process for a check's sake: its time, its memory, its stack."""

_ERRORS = msgspec.msgpack.Decoder(list[FieldError])


class SchemaChecker:
    """Compiled schemas by (queue id, version), and the process beside."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, int], Checked | None] = OrderedDict()
        """None: not cheap, for the process beside."""
        self._process: Process | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def compile(self, schema: str) -> list[FieldError]:
        """What is wrong with a schema that check_schema has nothing against."""
        errors = await self._ask(Request(schema, None, COMPILE_SECONDS))
        if errors is None:
            return [FieldError("/payload_schema", f"cannot be compiled within {COMPILE_SECONDS} seconds")]
        return errors

    async def check(self, queue: tuple[int, int], schema: str, payload: bytes, where: str) -> None:
        """Raises Refusal: payload_schema_mismatch with pointers below `where`, unavailable."""
        checked = self._find(queue, schema)
        units = SATURATED if checked is None else checked[1].units(payload)
        errors = None
        if checked is not None and units <= INLINE_UNITS:
            errors = violations(*checked, payload, named=units <= INLINE_ERROR_UNITS)
            if units > INLINE_ERROR_UNITS:
                await asyncio.sleep(0)  # many in one request take turns with others
        if errors is None:
            errors = await self._ask(Request(schema, payload, CHECK_SECONDS))
        if errors is None:
            errors = [FieldError("", f"cannot be checked against the queue's schema within {CHECK_SECONDS:g} seconds")]
        if errors:
            raise mismatch(errors, where)

    async def check_unsaved(self, schema: str, payload: bytes, where: str) -> None:
        """As check, for a schema that no queue has yet: it is compiled for this once."""
        errors = await self._ask(Request(schema, payload, CHECK_SECONDS))
        if errors is None:
            errors = [FieldError("", f"cannot be checked against the queue's schema within {CHECK_SECONDS:g} seconds")]
        if errors:
            raise mismatch(errors, where)

    def _find(self, queue: tuple[int, int], schema: str) -> Checked | None:
        if queue in self._kept:
            self._kept.move_to_end(queue)
            return self._kept[queue]
        value = schema_value(schema)
        bounds = find_bounds(value)
        checked = (compile_schema(value), bounds) if bounds.cheap else None
        self._kept[queue] = checked
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return checked

    async def _ask(self, request: Request) -> list[FieldError] | None:
        """None: it has taken too long, or too much memory or stack, and was ended. Raises Refusal (unavailable)."""
        if self._waiting >= MAX_WAITING:
            raise Refusal("unavailable", "too many payloads wait to be checked", retry_after_seconds=1)
        self._waiting += 1
        try:
            async with self._turn:
                return await self._talk(await self._started(), request)
        finally:
            self._waiting -= 1

    async def _talk(self, process: Process, request: Request) -> list[FieldError] | None:
        assert process.stdin is not None and process.stdout is not None
        question = ENCODER.encode(request)
        answer = None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                try:
                    process.stdin.write(len(question).to_bytes(4, "big") + question)
                    await process.stdin.drain()
                    size = int.from_bytes(await process.stdout.readexactly(4), "big")
                    answer = await process.stdout.readexactly(size)
                except (
                    OSError,
                    RuntimeError,
                    asyncio.IncompleteReadError,
                ):  # uvloop has RuntimeError for a closed pipe
                    code = await process.wait()
                    if -code not in OVERDONE:
                        raise _unavailable(f"it ended with {code}") from None
        except TimeoutError:
            raise _unavailable("it does not answer") from None
        finally:
            if answer is None:  # also when nobody waits for the answer any more: the next would take it for its own
                self._stop()
        return None if answer is None else _ERRORS.decode(answer)

    async def _started(self) -> Process:
        if self._process is None or self._process.returncode is not None:
            command = (sys.executable, "-P", "-m", schema_process.__name__)
            paths = os.pathsep.join(path for path in sys.path if path)
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env={"PYTHONPATH": paths}
                )
            except OSError as error:
                raise _unavailable(str(error)) from None
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()

    async def close(self) -> None:
        process = self._process
        self._stop()
        if process is not None:
            await process.wait()


def _unavailable(why: str) -> Refusal:
    return Refusal("unavailable", f"the process that checks payloads cannot be asked: {why}", retry_after_seconds=1)
