"""Request bodies: refused by their heads if possible, then read while there is room for them."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from app.domain.errors import Refusal
from app.edge.admission import Hold, no_room


def hold_of(scope: Scope) -> Hold | None:
    """Return what the request holds of the process; None if the server does not count it."""
    hold: Hold | None = scope.get("hold")
    return hold


def require_json(content_type: str | None) -> None:
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        found = f"not {media_type[:100]}" if media_type else "but none was given"
        raise Refusal(
            "unsupported_media_type",
            f"the content type must be application/json, {found}; with curl, --json '{{…}}' sets it",
        )


def require_size(content_length: str | None, max_bytes: int) -> None:
    """Refuse a body whose Content-Length is too large."""
    if content_length is not None and content_length.isdigit() and int(content_length[:18]) > max_bytes:
        raise _too_large(max_bytes)


async def read_body(
    scope: Scope,
    receive: Receive,
    max_bytes: int,
    *,
    free_bytes: int | None = None,
    beyond: Callable[[], Awaitable[object]] | None = None,
) -> bytes:
    """Return the whole body. Raises Refusal as soon as it is known to be too large, or there is no room for it.

    Beyond `free_bytes`, reading continues only after `beyond` has returned; it raises to refuse.
    """
    hold = hold_of(scope)
    message = await receive()
    body: bytes = message.get("body", b"")
    chunks, size = [body], len(body)
    while True:
        if hold is not None and hold.over:
            raise no_room()
        if size > max_bytes:
            raise _too_large(max_bytes)
        if beyond is not None and free_bytes is not None and size > free_bytes:
            await beyond()
            beyond = None
        if not message.get("more_body", False):
            break
        message = await receive()
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return body if len(chunks) == 1 else b"".join(chunks)


def _too_large(max_bytes: int) -> Refusal:
    return Refusal("too_large", f"the body is larger than {max_bytes} bytes; send less per request")


def closing_unless_read(receive: Receive, send: Send) -> tuple[Receive, Send]:
    """Close the connection of an `Expect: 100-continue` request that is answered before its body was requested: the client may or
    may not send the body, so whatever follows on the connection would be ambiguous."""
    asked = False

    async def noting_receive() -> Message:
        nonlocal asked
        asked = True
        return await receive()

    async def closing_send(message: Message) -> None:
        if message["type"] == "http.response.start" and not asked:
            headers: Any = [*message.get("headers", ()), (b"connection", b"close")]
            message = {**message, "headers": headers}
        await send(message)

    return noting_receive, closing_send
