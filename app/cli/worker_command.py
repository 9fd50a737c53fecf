"""A command that works on one task, and what its exit status means."""

import asyncio
import base64
import bisect
import codecs
import contextlib
import os
import resource
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from app.domain.answers import MAX_RESULT_BYTES
from app.domain.errors import Refusal
from app.domain.ijson import MAX_DEPTH, is_deeper, parse_ijson
from app.settings import PREFIX

URL = PREFIX + "URL"

ERROR_TAIL_BYTES = 1_000
STOP_GRACE_SECONDS = 5.0
LEFT_OPEN_SECONDS = 1.0
"""How long to wait for the output of an ended command: a child that left its process group can hold it open."""
EX_TEMPFAIL = 75
CANNOT_RUN = (126, 127)
"""The shell's exit status for a command that is not executable or does not exist: not the task's fault."""
CHUNK = 65_536


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    output: bytes
    """The beginning of stdout, or all of it if it fits in a result."""
    whole: bool
    errors: bytes
    """The end of stderr."""


class Command:
    """A shell and the processes it starts, in their own process group."""

    def __init__(self, process: asyncio.subprocess.Process, payload: bytes) -> None:
        self._process = process
        self._output = bytearray()
        self._whole = True
        self._errors = bytearray()
        self._streams = [
            asyncio.create_task(work) for work in (self._feed(payload), self._read_output(), self._read_errors())
        ]

    @classmethod
    async def start(cls, line: str, payload: bytes, environment: Mapping[str, str], memory_mb: int | None) -> "Command":
        limit = "" if memory_mb is None else f"ulimit -v {_kilobytes(memory_mb)} || exit 126; "
        process = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", f'{limit}exec /bin/sh -c "$1"', "sh", line),
            env={**handed_on(os.environ), **environment},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C in the terminal is for the worker
        )
        return cls(process, payload)

    async def ended(self) -> Ended:
        """Wait for it to end, then kill what it left behind in its process group."""
        try:
            code = await self._process.wait()
            self.signal(signal.SIGKILL)
            await asyncio.wait(self._streams, timeout=LEFT_OPEN_SECONDS)
        finally:
            for stream in self._streams:
                stream.cancel()
        return Ended(code, bytes(self._output), self._whole, bytes(self._errors))

    async def stop(self) -> None:
        """Send SIGTERM, then SIGKILL if it does not end."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), STOP_GRACE_SECONDS)
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    async def _feed(self, payload: bytes) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(OSError):  # a command need not read it
            stdin.write(payload)
            await stdin.drain()
        stdin.close()

    async def _read_output(self) -> None:
        assert self._process.stdout is not None
        while part := await self._process.stdout.read(CHUNK):
            room = MAX_RESULT_BYTES - len(self._output)
            self._whole = self._whole and len(part) <= room
            self._output += part[:room]

    async def _read_errors(self) -> None:
        assert self._process.stderr is not None
        while part := await self._process.stderr.read(CHUNK):
            sys.stderr.buffer.write(part)
            sys.stderr.buffer.flush()
            self._errors = (self._errors + part)[-ERROR_TAIL_BYTES:]


def handed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """What a command gets of the worker's environment: of the SLUICE_ variables only the address, as others can be secret."""
    return {name: value for name, value in environment.items() if name == URL or not name.startswith(PREFIX)}


def _kilobytes(memory_mb: int) -> int:
    """Not above this process's own limit, which cannot be raised."""
    mine = resource.getrlimit(resource.RLIMIT_AS)[1]
    return memory_mb * 1024 if mine == resource.RLIM_INFINITY else min(memory_mb * 1024, mine // 1024)


def verdict(ended: Ended) -> tuple[str, dict[str, Any]]:
    """Which request settles the task, and its body."""
    if ended.code == 0:
        return "complete", result_of(ended.output, ended.whole)
    told = ended.errors.decode(errors="replace").replace("\x00", "").strip()
    how = f"signal {-ended.code}" if ended.code < 0 else f"exit {ended.code}"
    retryable = ended.code in (EX_TEMPFAIL, *CANNOT_RUN)
    return "fail", {"error": f"{how}: {told}" if told else how, "retryable": retryable}


def result_of(output: bytes, whole: bool) -> dict[str, Any]:
    """The result fields for the service: JSON if the service accepts it, otherwise text, otherwise bytes.

    Text is truncated to the largest result. What was truncated, here or before (`whole`), is marked so, and is no longer JSON.
    """
    if not output.strip():
        return {}
    if whole:
        with contextlib.suppress(Refusal):
            value = parse_ijson(output)
            if not is_deeper(value, MAX_DEPTH - 1):
                return {"result": msgspec.Raw(output.strip())}
    try:
        # a character that was cut in two is dropped
        text = codecs.getincrementaldecoder("utf-8")().decode(output, final=whole).rstrip("\n")
    except UnicodeDecodeError:
        encoded = base64.b64encode(output).decode()
        return {"result": encoded, "result_encoding": "base64", "result_truncated": not whole}
    fits = bisect.bisect_right(
        range(len(text)), MAX_RESULT_BYTES, key=lambda n: len(msgspec.json.encode(text[: n + 1]))
    )
    return {"result": text[:fits], "result_truncated": not whole or fits < len(text)}
