"""One POST by the transport, with any headers, as a coroutine."""

import asyncio
from collections.abc import Sequence

from app.delivery.webhook.errors import DeliveryError
from app.delivery.webhook.requests import header_lines, request_line
from app.delivery.webhook.transport import Request, Transport
from app.delivery.webhook.urls import check_url
from app.domain.answers import MAX_RESULT_BYTES, Answer, NoAnswer


async def post(
    transport: Transport,
    url: str,
    headers: Sequence[tuple[str, str]],
    body: bytes,
    *,
    tenant: str,
    timeout_seconds: float,
    max_reply_bytes: int = MAX_RESULT_BYTES,
) -> Answer:
    """Return the answer. Raises DeliveryError if there is none. Cancelling it cancels the call."""
    parsed = check_url(url)
    head = f"{request_line(parsed)}{header_lines(headers)}content-length: {len(body)}\r\n\r\n".encode("latin-1")
    reply: asyncio.Future[Answer | NoAnswer | Exception] = asyncio.get_running_loop().create_future()
    sending = transport.send(Request(parsed, head, body, tenant, timeout_seconds, max_reply_bytes), reply.set_result)
    try:
        got = await asyncio.shield(reply)
    finally:
        if not reply.done():
            sending.cancel()
    if isinstance(got, Exception):
        raise got
    if isinstance(got, NoAnswer):
        raise DeliveryError(got.outcome, got.error)
    return got
