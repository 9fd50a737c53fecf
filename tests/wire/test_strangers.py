"""What somebody without a key can do to a whole process: nothing that others would notice."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest

from app.edge.server import raise_descriptor_limit
from tests.handlers import Handler
from tests.sluices import SluiceProcess, end, start_process
from tests.wire.api import Api, good

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

KEY = "slk_" + "0123456789abcdef" * 2
SHORT = ("sh", "-c", 'ulimit -n 1024 && exec "$@"', "sh", sys.executable, "-m", "app.cli.main")
"""A process that may open 1,024 files, and no more if it asks."""
MEBIBYTE = 1_048_576


@pytest.fixture
async def short(database_url: str) -> AsyncIterator[SluiceProcess]:
    settings: dict[str, str | None] = {
        "SLUICE_DATABASE_URL": database_url,
        "SLUICE_PORT": "0",
        "SLUICE_BOOTSTRAP_KEY": KEY,
        "SLUICE_EGRESS_ALLOW": "127.0.0.0/8",
    }
    process = await start_process("up", environment=settings, program=SHORT)
    yield await process.ready(60)
    await end(process)


def api_of(process: SluiceProcess, client: httpx2.AsyncClient) -> Api:
    client.headers["authorization"] = f"Bearer {KEY}"
    return Api(client, process.url)


async def open_silent(process: SluiceProcess, stack: AsyncExitStack, count: int) -> None:
    host, _, port = process.url.removeprefix("http://").rpartition(":")
    for _ in range(count):
        _, writer = await asyncio.open_connection(host, int(port))
        stack.callback(writer.close)


async def test_a_crowd_beyond_the_limit_of_open_files_resets_no_request_and_is_logged(
    short: SluiceProcess, handler: Handler
) -> None:
    assert raise_descriptor_limit() > 3_000
    [line] = short.events("descriptors_short")
    assert 300 <= line["connections"] < 500 and line["max_in_flight"] < 1_000
    async with AsyncExitStack() as stack:
        api = api_of(short, short.client)
        queue = await api.queue_to(handler.url)
        crowding = asyncio.create_task(open_silent(short, stack, 1_300))
        served = 0
        while not crowding.done() or served < 50:
            async with httpx2.AsyncClient(base_url=short.url, trust_env=False, verify=False, timeout=30) as fresh:
                await api_of(short, fresh).enqueue(queue)
            served += 1
        await crowding
        await handler.received(served)
    [line] = short.events("connections_full")[:1]
    assert line["limit"] < 500 and line["level"] == "warning"


async def test_megabytes_without_credentials_do_not_fill_the_memory(short: SluiceProcess) -> None:
    def peak() -> int:
        status = Path(f"/proc/{short.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024

    host, _, port = short.url.removeprefix("http://").rpartition(":")
    before = peak()

    async def send_much(reached: asyncio.Semaphore) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            f"POST /tasks/{uuid4()}/complete HTTP/1.1\r\nhost: a\r\nsluice-lease-token: {uuid4()}\r\n"
            f"content-type: application/json\r\ncontent-length: {4 * MEBIBYTE}\r\n\r\n".encode()
        )
        try:
            for _ in range(32):
                writer.write(b" " * (MEBIBYTE // 16))
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            reached.release()
        try:
            await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()

    reached = asyncio.Semaphore(0)
    crowd = [asyncio.create_task(send_much(reached)) for _ in range(300)]
    for _ in crowd:
        await reached.acquire()
    api = api_of(short, short.client)
    assert good(await api.get("/limits"))
    assert peak() - before < 100 * MEBIBYTE
    for stranger in crowd:
        stranger.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
