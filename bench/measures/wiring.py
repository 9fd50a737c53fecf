"""The SQS wire beside Sluice's own lease API, and beside moto's server: tasks sent, received and deleted, per second."""

import asyncio
import socket
import sys
import time
from typing import Any

import httpx2

from bench.cycles import headers_of
from bench.figures import paired
from bench.ground import Ground
from bench.processes import Child, ChildFailed
from bench.rows import LeftOut

QUEUE = "bench-sqs"
MOTO_SECONDS = 20
"""For its start."""
MOTO_WARM_SECONDS = 6.0
"""Before its messages count: it needs that long until the first of 16 connections has sent its ten and received."""
MOTO_LOAD_SECONDS = 4.0
"""In less, it may settle nothing on a busy machine."""


async def sqs(ground: Ground) -> dict[str, Any]:
    """All three in turns; a ratio is the median of each round's own."""
    async with ground.subject(SLUICE_SQS_PORT="0") as subject:
        wire = subject.first.wires["sqs"]
        await subject.queue(QUEUE, None)
        moto, at = await _moto(ground)
        rates: dict[str, list[float]] = {"leases": [], "sqs": [], "moto": []}
        for _ in range(ground.size.rounds):
            seconds = ground.size.load_seconds
            rates["leases"].append(await _load(ground, subject.first.url, "leases", seconds))
            rates["sqs"].append(await _load(ground, wire, "sqs", seconds))
            warm = ("--warm-seconds", str(MOTO_WARM_SECONDS))
            rates["moto"].append(await _load(ground, at, "sqs", max(MOTO_LOAD_SECONDS, seconds), *warm))
        await moto.stop()
    if not all(rates["moto"]):
        raise LeftOut(f"moto's server settled nothing in {MOTO_LOAD_SECONDS:.0f} s")
    return {
        "leases": paired(rates["leases"], rates["sqs"], ("leases", "sqs")),
        "moto": paired(rates["moto"], rates["sqs"], ("moto", "sqs")),
    }


async def _moto(ground: Ground) -> tuple[Child, str]:
    """moto's server with the queue, and its address. Raises ChildFailed if it does not start in time."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    moto = await Child.start([sys.executable, "-m", "moto.server", "-p", str(port)], ground.directory / "moto.log")
    ground.stack.push_async_callback(moto.stop)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + MOTO_SECONDS
    async with httpx2.AsyncClient(trust_env=False) as client:
        while True:
            try:
                reply = await client.post(url, json={"QueueName": QUEUE}, headers=headers_of("CreateQueue"))
            except httpx2.TransportError:
                if time.monotonic() > deadline:
                    raise ChildFailed(f"no answer of moto's server: {moto.last_words()}") from None
                await asyncio.sleep(0.05)
            else:
                reply.raise_for_status()
                return moto, url


async def _load(ground: Ground, url: str, wire: str, seconds: float, *more: str) -> float:
    options = ("--wire", wire, "--queue", QUEUE, "--seconds", str(seconds), *more)
    load = await Child.python("bench.cycles", url, *options, output=ground.directory / "cycles.log")
    said = await load.heard("cycled", seconds + 40)
    await load.stop()
    return float(said["per_second"])
