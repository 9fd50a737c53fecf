"""Replicas for tests: real processes of `sluice up`, to be killed, and whole replicas inside the test's own process."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2

from app.settings import Settings
from tests.support import poll

if TYPE_CHECKING:
    from app.main import Sluice

ROOT = Path(__file__).parents[1]
START_SECONDS = 60.0
"""A start takes two seconds, and many times that beside others: only a test that fails waits so long."""

# Clients of tests speak plain HTTP. With `verify=False` none loads the system's certificates, which takes 25 ms of processor
# time, as much as the rest of a replica's start.


class SluiceProcess:
    """A `sluice up` of its own. What it prints, on either stream, is in `lines`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.pid = process.pid
        self.url = ""
        self.lines: list[str] = []
        self.client = httpx2.AsyncClient(trust_env=False, verify=False)
        self._news = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    @property
    def returncode(self) -> int | None:
        return self.process.returncode

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of this event so far."""
        return [entry for entry in map(_parsed, self.lines) if entry.get("event") == name]

    async def printed(self, wanted: Callable[[str], bool], timeout_seconds: float = START_SECONDS) -> str:
        """Wait for a line, from now or before."""
        try:
            async with asyncio.timeout(timeout_seconds), self._news:
                await self._news.wait_for(lambda: self._reading.done() or any(map(wanted, self.lines)))
        except TimeoutError:
            raise AssertionError(f"no such line within {timeout_seconds} s:\n{self.output}") from None
        line = next(filter(wanted, self.lines), None)
        assert line is not None, f"sluice ended with {self.returncode} before that line:\n{self.output}"
        return line

    async def ready(self, timeout_seconds: float = START_SECONDS) -> "SluiceProcess":
        line = await self.printed(lambda line: _parsed(line).get("event") == "ready", timeout_seconds)
        self.url = _parsed(line)["url"]
        await self.client.aclose()
        self.client = httpx2.AsyncClient(base_url=self.url, trust_env=False, verify=False, timeout=30)

        async def answers() -> bool:
            return (await self.client.get("/health/ready")).status_code == 200

        await poll(answers, timeout_seconds)
        return self

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def kill(self) -> None:
        """kill -9, and wait for the end."""
        if self.process.returncode is None:
            self.process.kill()
        await self.ended()

    async def terminate(self, timeout_seconds: float = 40.0) -> int:
        """SIGTERM, and wait for the end."""
        if self.process.returncode is None:
            self.process.terminate()
        return await self.ended(timeout_seconds)

    async def ended(self, timeout_seconds: float = 40.0) -> int:
        try:
            async with asyncio.timeout(timeout_seconds):
                code = await self.process.wait()
                await self._reading
        except TimeoutError:
            raise AssertionError(f"still running after {timeout_seconds} s:\n{self.output}") from None
        await self.client.aclose()
        return code

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            async with self._news:
                self.lines.append(line.decode(errors="replace").rstrip())
                self._news.notify_all()
        async with self._news:
            self._news.notify_all()


async def start_process(
    *arguments: str,
    environment: dict[str, str | None],
    program: tuple[str | Path, ...] = (sys.executable, "-m", "app.cli.main"),
    folder: Path = ROOT,
) -> SluiceProcess:
    """Start `sluice ARGUMENTS` in a folder; None takes a variable out of the environment."""
    merged = {**os.environ, **environment}
    process = await asyncio.create_subprocess_exec(
        *program,
        *arguments,
        env={name: value for name, value in merged.items() if value is not None},
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=2**20,
    )
    return SluiceProcess(process)


async def end(process: SluiceProcess) -> None:
    """Let it stop as usual; a test that wants it killed kills it."""
    if process.returncode is None:
        process.signal(signal.SIGCONT)
        process.signal(signal.SIGTERM)
        process.signal(signal.SIGINT)  # a second one skips the drain; another SIGTERM can become one with the first
    try:
        await process.ended(10)
    except AssertionError:
        await process.kill()


class Replica:
    """A replica in this process, listening on a real socket."""

    def __init__(self, sluice: "Sluice", server: Any, client: httpx2.AsyncClient) -> None:
        self.sluice = sluice
        self.server = server
        self.url = sluice.url
        self.client = client

    def caller(self, token: str) -> httpx2.AsyncClient:
        """A client of its own, with this key."""
        headers = {"authorization": f"Bearer {token}"}
        return httpx2.AsyncClient(base_url=self.url, trust_env=False, verify=False, timeout=30, headers=headers)


@asynccontextmanager
async def replica_with(settings: Settings) -> AsyncIterator[Replica]:
    from app.main import running  # tests that need no replica do not wait for all of its imports

    async with (
        running(settings) as (sluice, server),
        httpx2.AsyncClient(base_url=sluice.url, trust_env=False, verify=False, timeout=30) as client,
    ):
        yield Replica(sluice, server, client)


def _parsed(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
