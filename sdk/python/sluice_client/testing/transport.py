"""The fake as a place that HTTP requests go to, instead of the network."""

from collections.abc import Awaitable, Callable

import httpx2

from sluice_client.testing.blocking import block_on
from sluice_client.testing.routes import Answer, answer
from sluice_client.testing.service import MemorySluice


class MemoryTransport(httpx2.AsyncBaseTransport, httpx2.BaseTransport):
    """Answers requests from memory. `after` is awaited after each request that may have made tasks due."""

    def __init__(self, sluice: MemorySluice, after: Callable[[], Awaitable[object]]) -> None:
        self._sluice = sluice
        self._after = after

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        answered = self._answer(request, await request.aread())
        if request.method == "POST":
            await self._after()
        return _response(request, answered)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        answered = self._answer(request, request.read())
        if request.method == "POST":
            block_on(self._after)
        return _response(request, answered)

    def _answer(self, request: httpx2.Request, content: bytes) -> Answer:
        target = request.url.raw_path.decode("ascii")
        return answer(self._sluice, request.method, target, request.headers, content)


def _response(request: httpx2.Request, answered: Answer) -> httpx2.Response:
    headers = {"content-type": answered.content_type, **answered.headers}
    return httpx2.Response(answered.status, headers=headers, content=answered.content, request=request)
