"""The servers beside Postgres that all contestants meet: nginx as the handler, Redis as two peers' store."""

import asyncio
import shutil
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Self

from bench.processes import Child, ChildFailed

# One process: on few cores a second would only take from the workers. No request is read further than its end.
NGINX = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/nginx.error.log crit;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 3600s;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ return 200; }}
    location = /status {{ stub_status; }}
  }}
}}
"""


class Nginx:
    """Answers 200 to everything, and counts what it has answered."""

    def __init__(self, child: Child, port: int) -> None:
        self.child = child
        self.url = f"http://127.0.0.1:{port}"
        self._port = port
        self._asked = 0
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @classmethod
    async def start(cls, directory: Path) -> Self:
        port = _free_port()
        config = directory / "nginx.conf"
        config.write_text(NGINX.format(directory=directory, port=port))
        child = await Child.start([program("nginx"), "-c", str(config), "-p", str(directory)], directory / "nginx.log")
        await _until_listening(child, lambda: asyncio.open_connection("127.0.0.1", port))
        return cls(child, port)

    async def served(self) -> int:
        """How many requests it has got so far, without those that asked for the number."""
        if self._connection is None:
            self._connection = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._connection
        writer.write(b"GET /status HTTP/1.1\r\nhost: nginx\r\n\r\n")
        self._asked += 1
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        # "Active connections: 1 \nserver accepts handled requests\n 1 1 1 \nReading: …"
        lines = (await reader.readexactly(length)).splitlines()
        return int(lines[2].split()[2]) - self._asked

    async def stop(self) -> None:
        if self._connection is not None:
            self._connection[1].close()
        await self.child.stop()


class Redis:
    """Append-only with its default fsync, once per second: an answered write may be lost in a crash of the machine."""

    def __init__(self, child: Child, socket_path: Path) -> None:
        self.child = child
        self.address = str(socket_path)
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @classmethod
    async def start(cls, directory: Path, socket_path: Path) -> Self:
        options = {
            "port": "0",
            "unixsocket": str(socket_path),
            "dir": str(directory),
            "appendonly": "yes",
            "appendfsync": "everysec",
            # No snapshots beside the log: they would take a core now and then.
            "save": "",
            # What BullMQ asks for.
            "maxmemory-policy": "noeviction",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        child = await Child.start([program("redis-server"), *words], directory / "redis.log")
        await _until_listening(child, lambda: asyncio.open_unix_connection(str(socket_path)))
        return cls(child, socket_path)

    async def any_of(self, commands: Sequence[str]) -> bool:
        """Whether one of these commands, as `llen KEY`, answers with another number than 0."""
        return any([await self._ask(*command.split()) != b":0" for command in commands])

    async def clear(self, commands: Sequence[str]) -> None:
        for command in commands:
            await self._ask(*command.split())

    async def tidy(self) -> None:
        """Nothing is left behind that has to be tidied."""

    async def close(self) -> None:
        """The server is shared, and stops after its users."""

    async def _ask(self, *words: str) -> bytes:
        """Send one command; return the first line of the answer. Raises RuntimeError for an error."""
        if self._connection is None:
            self._connection = await asyncio.open_unix_connection(self.address)
        reader, writer = self._connection
        writer.write(f"*{len(words)}\r\n".encode())
        for word in words:
            writer.write(f"${len(word.encode())}\r\n{word}\r\n".encode())
        line = (await reader.readuntil(b"\r\n")).strip()
        if line.startswith(b"-"):
            raise RuntimeError(f"redis: {' '.join(words)}: {line.decode()}")
        return line

    async def stop(self) -> None:
        if self._connection is not None:
            self._connection[1].close()
        await self.child.stop()


def program(name: str) -> str:
    """The path of a program, also of one that only root has on its path. Raises ChildFailed."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise ChildFailed(f"{name} is not installed")
    return found


async def _until_listening(child: Child, connect: Callable[[], Awaitable[Any]]) -> None:
    for _ in range(500):
        try:
            _, writer = await connect()
        except OSError:
            if child.process.returncode is not None:
                break
            await asyncio.sleep(0.01)
            continue
        writer.close()
        return
    raise ChildFailed(f"does not listen: {child.last_words()}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
