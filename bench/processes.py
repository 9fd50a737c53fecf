"""Child processes that say JSON lines, and what they weigh."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]


class ChildFailed(Exception):
    """A child that ended, or said nothing in time; with its last words."""


def say(**fields: object) -> None:
    """One JSON line on stdout, at once."""
    print(json.dumps(fields), flush=True)


class Child:
    """A process whose output goes to a file, for a pipe nobody reads would block it."""

    def __init__(self, process: asyncio.subprocess.Process, output: Path) -> None:
        self.process = process
        self.output = output
        self._read = 0

    @classmethod
    async def start(
        cls, command: Sequence[str], output: Path, environ: Mapping[str, str] | None = None, cwd: Path = ROOT
    ) -> Self:
        with output.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=cwd, env=environ, stdin=asyncio.subprocess.PIPE, stdout=file, stderr=file
            )
        return cls(process, output)

    @classmethod
    async def python(cls, module: str, *arguments: str, output: Path) -> Self:
        return await cls.start([sys.executable, "-m", module, *arguments], output)

    async def heard(self, event: str, seconds: float) -> dict[str, Any]:
        """The next line that says this event."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    for line in self._new_lines():
                        with contextlib.suppress(ValueError):
                            said = json.loads(line)
                            if isinstance(said, dict) and said.get("event") == event:
                                return said
                    if self.process.returncode is not None:
                        raise ChildFailed(f"ended with {self.process.returncode}: {self.last_words()}")
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise ChildFailed(f"no {event!r} within {seconds:.0f} s: {self.last_words()}") from None

    def tell(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode() + b"\n")

    def last_words(self) -> str:
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-8:])

    def resident_mb(self) -> float:
        """What the process and its children hold in memory."""
        return sum(_resident_kb(pid) for pid in _family(self.process.pid)) / 1024

    def descriptors(self) -> int:
        """How many files and sockets the process and its children have open."""
        return sum(_entries(pid, "fd") for pid in _family(self.process.pid))

    def threads(self) -> int:
        return sum(_entries(pid, "task") for pid in _family(self.process.pid))

    def cpu_seconds(self) -> float:
        """What the process and its children have used of the processors so far."""
        return cpu_seconds(self.process.pid)

    async def stop(self) -> None:
        if self.process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(10):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()

    def _new_lines(self) -> list[bytes]:
        with self.output.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        end = text.rfind(b"\n") + 1
        self._read += end
        return text[:end].splitlines()


def clean_environ(**added: str) -> dict[str, str]:
    """This environment without what would change the service under test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "OTEL_"))}
    return kept | added


def cpu_seconds(pid: int) -> float:
    """What a process and its children have used of the processors so far, without children that have ended."""
    return sum(_cpu_nanoseconds(member) for member in _family(pid)) / 1e9


def _family(pid: int) -> list[int]:
    found = [pid]
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += _family(int(child))
    return found


def _cpu_nanoseconds(pid: int) -> int:
    """Of the threads that live: the clock ticks of stat are too coarse for what idles."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            total += int(thread.read_text().split()[0])
    return total


def _entries(pid: int, folder: str) -> int:
    with contextlib.suppress(OSError):
        return len(list(Path(f"/proc/{pid}/{folder}").iterdir()))
    return 0


def _resident_kb(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0
