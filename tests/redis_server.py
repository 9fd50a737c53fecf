"""A redis-server of a test's own, on a port of its own, to be filled, flushed and killed."""

import asyncio
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.delivery.redis_stream.addresses import RedisFailure, parse_redis_url
from app.delivery.redis_stream.connection import RedisConnection
from app.delivery.webhook.egress import EgressPolicy
from tests.support import poll

Field = str | bytes


class RedisServer:
    """A server whose writes reach the disk at once, or never if it is `forgetful`."""

    def __init__(self, directory: Path, *, forgetful: bool = False, **settings: str) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._settings = {
            "save": "",
            "appendonly": "no" if forgetful else "yes",
            "appendfsync": "always",
            **{name.replace("_", "-"): value for name, value in settings.items()},
        }
        self._process: asyncio.subprocess.Process | None = None
        password = settings.get("requirepass")
        address = parse_redis_url(f"redis://:{password}@127.0.0.1:{self.port}" if password else self.url)
        self._own = RedisConnection(EgressPolicy(["127.0.0.0/8"]), "test", address, max_reply_bytes=1024**3)

    async def start(self) -> "RedisServer":
        given = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.directory), **self._settings}
        arguments = [word for name, value in given.items() for word in (f"--{name}", value)]
        devnull = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec("redis-server", *arguments, stdout=devnull)

        async def answers() -> bool:
            try:
                return await self.ask("PING") == b"PONG"
            except RedisFailure:
                return False

        await poll(answers, 20)
        return self

    async def ask(self, *command: Field | int) -> Any:
        """Send a command. Raises RedisFailure."""
        return (await self.ask_all(command))[0]

    async def ask_all(self, *commands: tuple[Field | int, ...]) -> list[Any]:
        replies = await self._own.run(commands, 20)
        for reply in replies:
            if isinstance(reply, RedisFailure):
                raise reply
        return replies

    async def add(self, stream: str, *entries: Mapping[Field, Field] | Field) -> list[str]:
        """Add entries, each with these fields or this body; return their ids."""
        commands = []
        for entry in entries:
            fields = entry if isinstance(entry, Mapping) else {"body": entry}
            commands.append(("XADD", stream, "*", *(part for field in fields.items() for part in field)))
        return [reply.decode() for reply in await self.ask_all(*commands)]

    async def group(self, stream: str, group: str = "sluice") -> dict[str, Any]:
        """What the server says of a consumer group; nothing if there is none."""
        for found in await self.ask("XINFO", "GROUPS", stream):
            named = dict(zip((name.decode() for name in found[::2]), found[1::2], strict=True))
            if named["name"] == group.encode():
                return named
        return {}

    async def settled(self, stream: str, group: str = "sluice") -> bool:
        """Whether everything has been read and acknowledged."""
        found = await self.group(stream, group)
        last = (await self.ask("XREVRANGE", stream, "+", "-", "COUNT", 1)) or [[b"0-0"]]
        return bool(found) and found["pending"] == 0 and found["last-delivered-id"] == last[0][0]

    async def kill(self) -> None:
        """kill -9, and wait for the end."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        await self._own.aclose()
        await self._end(signal.SIGTERM)

    async def _end(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)
            await self._process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
