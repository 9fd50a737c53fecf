"""A task after one attempt whose answer is given."""

from typing import Any

from tests.handlers import Handler, Reply
from tests.support import poll
from tests.wire.api import Api

FIXED_600 = {"backoff": {"kind": "fixed", "seconds": 600}}
"""A wait that no test sees the end of."""


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
