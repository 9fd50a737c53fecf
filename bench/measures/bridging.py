"""Tasks that leave to SQS and to a Redis stream, beside tasks that leave to a webhook.

In place of SQS, the minimal handler takes the messages, as it takes webhooks: so Sluice is measured, and not a server of SQS.
"""

import asyncio
import shutil
import socket
import time
from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as NoConnection

from bench.ground import Ground, Way, costs
from bench.processes import Child, ChildFailed
from bench.rows import LeftOut
from bench.subject import Reports

TARGET = "bench-target"
"""The handler, its queue, and its stream."""
REDIS_SECONDS = 20
"""For its start."""


async def to_sqs(ground: Ground) -> dict[str, Any]:
    """Each task is one signed request."""
    address = {
        "kind": "sqs",
        "queue_url": f"{ground.handler_url}/123456789012/{TARGET}",
        "region": "us-east-1",
        "credentials": {"access_key_id": "bench", "secret_access_key": "bench"},
    }
    return await _beside_webhooks(ground, address, ground.reports)


async def to_redis(ground: Ground) -> dict[str, Any]:
    """Each task is one entry of a stream. Raises LeftOut without a redis-server."""
    if shutil.which("redis-server") is None:
        raise LeftOut("there is no redis-server on this machine")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    redis = await Child.start(command, ground.directory / "redis.log", cwd=ground.directory)
    ground.stack.push_async_callback(redis.stop)
    async with Redis(port=port) as client:
        reports = StreamReports(client)
        await reports.ready(redis)
        address = {"kind": "redis_stream", "url": f"redis://127.0.0.1:{port}", "stream": TARGET}
        found = await _beside_webhooks(ground, address, reports)
    await redis.stop()
    return found


async def _beside_webhooks(ground: Ground, address: Mapping[str, Any], reports: Reports) -> dict[str, Any]:
    webhook: list[Way] = []
    target: list[Way] = []
    async with ground.subject() as subject:
        await subject.ask("PUT", f"/handlers/{TARGET}", address)
        await subject.queue(TARGET, TARGET)

        async def over_webhook() -> float:
            webhook.append(await ground.whole_way(subject, ground.size.fewer_tasks))
            return webhook[-1].per_second

        async def over_target() -> float:
            way = await ground.whole_way(subject, ground.size.fewer_tasks, [TARGET], handler=TARGET, reports=reports)
            target.append(way)
            return way.per_second

        found = await ground.rounds(over_webhook, over_target, ground.size.few_rounds, ("webhook", "target"))
    counted = ground.size.few_rounds
    return found | {"webhook_cost": costs(webhook[-counted:]), "target_cost": costs(target[-counted:])}


class StreamReports:
    """How many entries the stream has."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def ready(self, redis: Child) -> None:
        """Wait for the server. Raises ChildFailed if it does not start in time."""
        deadline = time.monotonic() + REDIS_SECONDS
        while True:
            try:
                await self._client.ping()
            except NoConnection:
                if time.monotonic() > deadline:
                    raise ChildFailed(f"no answer of redis-server: {redis.last_words()}") from None
                await asyncio.sleep(0.05)
            else:
                return

    async def take(self) -> dict[str, Any]:
        count = await self.count()
        await self._client.delete(TARGET)
        return {"count": count}

    async def count(self) -> int:
        return int(await self._client.xlen(TARGET))
