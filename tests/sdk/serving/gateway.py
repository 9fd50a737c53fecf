"""A proxy before a service, that a test can make ill."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

REASONS = {502: "Bad Gateway", 504: "Gateway Timeout"}


class Gateway:
    """Passes connections on to a port. While it is ill, it answers every request with that status, and hears no response."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ill: int | None = None
        self._links: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.answered: list[int] = []
        """What it has answered itself to requests that came while it was ill."""
        self.url = ""

    def fall_ill(self, status: int) -> None:
        """Requests that are under way get this answer, too: the service may carry them out all the same."""
        self._ill = status
        for link, client in self._links.items():
            self._answer(client, status)
            link.cancel()

    def recover(self) -> None:
        self._ill = None

    def has_answered(self, status: int, times: int) -> bool:
        return self.answered.count(status) >= times

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Gateway"]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for link in tuple(self._links):
                link.cancel()
            await asyncio.gather(*self._links, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.create_task(self._link(reader, writer))
        self._links[link] = writer
        link.add_done_callback(lambda link: self._links.pop(link, None))

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._ill is not None:
                await reader.read(65_536)
                self._answer(writer, self._ill)
                self.answered.append(self._ill)
                return
            try:
                upstream = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                await reader.read(65_536)
                self._answer(writer, 502)
                return
            ways = [asyncio.create_task(_pass_on(*way)) for way in ((reader, upstream[1]), (upstream[0], writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                upstream[1].close()
        finally:
            writer.close()

    def _answer(self, writer: asyncio.StreamWriter, status: int) -> None:
        body = b"<html>it is the proxy that speaks</html>"
        head = f"HTTP/1.1 {status} {REASONS[status]}\r\ncontent-type: text/html\r\ncontent-length: {len(body)}\r\n"
        writer.write(head.encode() + b"connection: close\r\n\r\n" + body)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
