"""Servers of SQS to run a suite against."""

import asyncio
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2

from tests.docs.ports import free_ports
from tests.sluices import end, start_process
from tests.support import poll


@asynccontextmanager
async def sluice_server() -> AsyncIterator[str]:
    """`sluice up` with a Postgres of its own, without authentication. Yields where SQS clients find it."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="sluice-suites-") as folder:
        environment: dict[str, str | None] = {
            "SLUICE_DATA_DIR": folder,
            "SLUICE_PORT": "0",
            "SLUICE_SQS_PORT": str(port),
            "SLUICE_LOG_LEVEL": "warning",
        }
        process = await start_process("up", environment=environment)
        try:
            yield await _answering(f"http://localhost:{port}")
        finally:
            await end(process)


@asynccontextmanager
async def moto_server() -> AsyncIterator[str]:
    (port,) = free_ports(1)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "moto.server", "-p", str(port)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield await _answering(f"http://localhost:{port}")
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()


async def _answering(url: str) -> str:
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:

        async def answers() -> bool:
            try:
                await client.get(url)
            except httpx2.TransportError:
                return False
            return True

        await poll(answers, 60)
    return url
