"""POSTs a second of the delivery client and its rivals: 64 in flight, one process, a minimal handler in another.

    python -m bench.clients [--json] [--rounds 3] [--seconds 2] [--in-flight 64]

Rounds are paired: in each, every client runs once, in an order that rotates, against the same handler; figures are
medians over rounds and ratios the medians of each round's ratio. All clients send the same 15 headers and the same payload.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from multiprocessing.connection import Connection as Pipe

import aiohttp
import uvloop
from pyreqwest.client import ClientBuilder

from app.delivery.deliveries import Deliveries
from app.delivery.kinds import Call
from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.requests import headers_of, render
from app.delivery.webhook.transport import Transport
from app.domain.answers import Answer
from app.domain.options import Options

REPLY = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
PAYLOAD = json.dumps({"to": "someone@example.com", "text": "x" * 200}).encode()
Post = Callable[[], Awaitable[None]]


class Handler(asyncio.Protocol):
    """Reads requests by their content-length and answers each: the least that is still correct."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:") + len("content-length:")
            length = int(head[at : head.find(b"\r\n", at) if b"\r\n" in head[at:] else None])
            if len(self.buffer) < end + 4 + length:
                return
            self.buffer = self.buffer[end + 4 + length :]
            self.transport.write(REPLY)  # type: ignore[attr-defined]


def serve(pipe: Pipe) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Handler, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    with suppress(KeyboardInterrupt):
        uvloop.run(main())


def call_to(url: str) -> Call:
    return Call(
        tenant="bench",
        url=url,
        task_id="0193a5b0-1111-7000-8000-000000000000",
        queue="mail",
        options=Options(type="mail.send"),
        attempt=1,
        max_attempts=25,
        lease_token="5b4a1f0e-0000-4000-8000-000000000000",
        task_url="http://127.0.0.1:8080/tasks/0193a5b0-1111-7000-8000-000000000000",
        timeout_seconds=30.0,
        payload=PAYLOAD,
        secrets=("whsec_" + "A" * 44,),
    )


async def measure(post: Post, in_flight: int, seconds: float) -> float:
    done = 0

    async def sender(until: float) -> None:
        nonlocal done
        while time.perf_counter() < until:
            await post()
            done += 1

    await asyncio.gather(*(sender(time.perf_counter() + 0.3) for _ in range(in_flight)))
    done, started = 0, time.perf_counter()
    await asyncio.gather(*(sender(started + seconds) for _ in range(in_flight)))
    return done / (time.perf_counter() - started)


async def thin(url: str, in_flight: int, seconds: float) -> float:
    """The whole of `deliver`: the call made, its head rendered and signed anew each time."""
    egress = EgressPolicy(["127.0.0.0/8"])
    webhooks = Deliveries(egress, Transport(egress))

    async def post() -> None:
        answer = await webhooks.deliver(call_to(url), datetime.now(UTC))
        assert isinstance(answer, Answer)

    try:
        return await measure(post, in_flight, seconds)
    finally:
        await webhooks.aclose()


async def pyreqwest(url: str, in_flight: int, seconds: float) -> float:
    headers = headers_of(render(call_to(url), datetime.now(UTC))[1])
    async with ClientBuilder().build() as client:

        async def post() -> None:
            response = await client.post(url).headers(headers).body_bytes(PAYLOAD).build().send()
            assert bytes(await response.bytes()) == b"ok"

        return await measure(post, in_flight, seconds)


async def aiohttp_client(url: str, in_flight: int, seconds: float) -> float:
    headers = headers_of(render(call_to(url), datetime.now(UTC))[1])
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight)) as session:

        async def post() -> None:
            async with session.post(url, headers=headers, data=PAYLOAD) as response:
                assert await response.read() == b"ok"

        return await measure(post, in_flight, seconds)


CLIENTS = {"thin": thin, "pyreqwest": pyreqwest, "aiohttp": aiohttp_client}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--in-flight", type=int, default=64)
    options = parser.parse_args()
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    handler = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    handler.start()
    url = f"http://127.0.0.1:{ours.recv()}/hook"
    rates: dict[str, list[float]] = {name: [] for name in CLIENTS}
    try:
        for number in range(options.rounds):
            order = list(CLIENTS.items())
            for name, client in order[number % len(order) :] + order[: number % len(order)]:
                rates[name].append(uvloop.run(client(url, options.in_flight, options.seconds)))
    finally:
        handler.kill()
        handler.join()
    thin_rates = rates["thin"]
    result = {
        "in_flight": options.in_flight,
        "rounds": options.rounds,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "clients": {
            name: {
                "posts_per_second": round(statistics.median(found)),
                "thin_is_times": round(statistics.median(t / f for t, f in zip(thin_rates, found, strict=True)), 2),
            }
            for name, found in rates.items()
        },
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"{'client':<24}{'POSTs/s':>10}{'thin is':>12}")
    for name, row in result["clients"].items():
        print(f"{name:<24}{row['posts_per_second']:>10,}{row['thin_is_times']:>10.2f} x")


if __name__ == "__main__":
    main()
