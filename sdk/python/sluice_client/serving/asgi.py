"""A mount for FastAPI, Starlette and whatever else speaks ASGI 3."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from sluice_client.serving.push import Push
from sluice_client.serving.settlements import Reply

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

log = logging.getLogger("sluice_client.serving")


class AsgiApp:
    """Runs the tasks that Sluice delivers to any path below it."""

    def __init__(self, push: Push) -> None:
        self._push = push

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._request(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        else:
            await send({"type": f"{scope['type']}.close"})

    async def _request(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._push.refuse(scope["method"], headers)
        body = b"" if refusal is not None else await _read(receive, self._push.max_body_bytes)
        if isinstance(body, _TooLarge):
            refusal = self._push.too_large()
        if refusal is not None:
            # the body is left unread, so the connection cannot be used again; HTTP/2 has no such header
            await _send(send, refusal, {"connection": "close"} if scope["http_version"].startswith("1") else {})
        elif isinstance(body, bytes) and (reply := await self._answered(headers, body, receive)) is not None:
            await _send(send, reply, {})

    async def _answered(self, headers: dict[str, str], body: bytes, receive: Receive) -> Reply | None:
        """Return the response, or None if the caller has gone before it.

        A service that hangs up has given up on this attempt: its deadline has passed, the task is cancelled, or the replica
        died. What the function would return can reach nobody, and another attempt may begin. So it is cancelled.
        """
        working = asyncio.ensure_future(self._push.answer(headers, body))
        listening = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait((working, listening), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            log.warning("the call for task %s was hung up: the task is cancelled here", headers.get("webhook-id"))
            return None
        finally:
            listening.cancel()
            if not working.done():
                working.cancel()
                await asyncio.wait((working,))


class _TooLarge:
    """A body that is larger than it may be."""


async def _read(receive: Receive, max_bytes: int) -> bytes | _TooLarge | None:
    """Return the body of a request, or None if the caller has gone."""
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            return _TooLarge()
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, reply: Reply, more: dict[str, str]) -> None:
    headers = {"content-length": str(len(reply.body)), **reply.headers, **more}
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": encoded})
    await send({"type": "http.response.body", "body": reply.body})


async def _lifespan(receive: Receive, send: Send) -> None:
    """There is nothing to start or to stop, but a server may ask."""
    while True:
        stage = (await receive())["type"].rpartition(".")[2]
        await send({"type": f"lifespan.{stage}.complete"})
        if stage == "shutdown":
            return
