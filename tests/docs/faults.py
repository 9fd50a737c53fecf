"""What stands between a worker and Sluice on a bad day: answers that are not Sluice's, none at all, and lost ones."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2

from tests.handlers import Handler, Received, Reply

PAGE = b"<html><title>Bad Gateway</title></html>"
HTML = {"content-type": "text/html"}
NO_ANSWERS: tuple[Reply, ...] = (
    Reply(502, HTML, PAGE),
    Reply(503, HTML, PAGE),
    Reply(504, HTML, PAGE),
    Reply(500, {}, b""),
    Reply(429, {"retry-after": "1"}, b""),
    Reply(200, HTML, PAGE),
    Reply(raw=b""),
    Reply(raw=b"\x00 no HTTP\r\n\r\n"),
    Reply(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"),
    Reply(until=asyncio.Event()),
)
"""The last one never comes."""


class Between:
    """A proxy before a Sluice. To the first requests of each path's last word it gives these answers; then it lets them through."""

    def __init__(self, url: str, answers: tuple[Reply, ...] = NO_ANSWERS) -> None:
        self._target = url
        self._answers = answers
        self._given: dict[str, int] = {}
        self.lost: set[str] = set()
        """Words whose next request is carried out and its answer lost."""
        self.passed: list[str] = []
        self.url = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Between"]:
        async with httpx2.AsyncClient(trust_env=False, timeout=90) as self._client, Handler().serving() as front:
            front.script(self._answer)
            self.url = front.url.removesuffix("/hook")
            yield self

    async def _answer(self, request: Received) -> Reply:
        word = request.path.rpartition("/")[2]
        given = self._given.get(word, 0)
        if given < len(self._answers):
            self._given[word] = given + 1
            return self._answers[given]
        hop = ("host", "connection", "content-length")
        headers = {name: value for name, value in request.headers.items() if name not in hop}
        reply = await self._client.request(
            request.method, self._target + request.path, content=request.body, headers=headers
        )
        self.passed.append(word)
        if word in self.lost:
            self.lost.discard(word)
            return Reply(raw=b"")
        return Reply(reply.status_code, {"content-type": reply.headers.get("content-type", "")}, reply.content)
