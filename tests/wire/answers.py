"""A task after one attempt whose answer is given, and whether a request was signed."""

import base64
import hashlib
import hmac
from typing import Any

from tests.handlers import Handler, Received, Reply
from tests.support import poll
from tests.wire.api import Api

FIXED_600 = {"backoff": {"kind": "fixed", "seconds": 600}}
"""A wait that no test sees the end of."""
_KEY = b"0123456789abcdef01234567"
SECRET = "whsec_" + base64.b64encode(_KEY).decode()


def is_signed(request: Received, body: bytes) -> bool:
    """Whether the handler with this secret was sent this body; the package for Standard Webhooks only reads text."""
    message = f"{request.task}.{request.headers['webhook-timestamp']}.".encode() + body
    mac = base64.b64encode(hmac.digest(_KEY, message, hashlib.sha256)).decode()
    return request.headers["webhook-signature"] == f"v1,{mac}"


async def outcome(api: Api, handler: Handler, reply: Reply, **queue: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The task after one attempt that was answered so, and the attempt."""
    handler.answer(reply)
    task = await api.enqueue(await api.queue_to(handler.url, **{"retry": FIXED_600, **queue}))
    await handler.received()
    shown = await settled(api, task["id"])
    [attempt] = await api.attempts(task["id"])
    return shown, attempt


async def settled(api: Api, task_id: str) -> dict[str, Any]:
    async def there() -> dict[str, Any] | None:
        task = await api.task(task_id)
        return None if task["state"] == "running" or not task["started_at"] else task

    return await poll(there)
