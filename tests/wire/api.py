"""Sluice as its callers see it: requests over a socket, and what the contract says of the answers."""

import asyncio
import itertools
import json
import secrets
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx2

from tests.support import poll

UNFINISHED = ("scheduled", "ready", "running")
AT_ONCE = {"backoff": {"kind": "fixed", "seconds": 0}}
"""A retry policy without a wait."""
_numbers = itertools.count(1)


def fresh(noun: str) -> str:
    """A name that no other test uses: most tests share one replica."""
    return f"{noun}-{next(_numbers)}-{secrets.token_hex(3)}"


class Api:
    def __init__(self, client: httpx2.AsyncClient, url: str) -> None:
        self.client = client
        self.url = url
        self.get, self.put = client.get, client.put
        self.post, self.delete = client.post, client.delete

    async def handler(self, url: str, **fields: Any) -> str:
        """The name of a new handler."""
        name = fresh("h")
        good(await self.put(f"/handlers/{name}", json={"url": url, **fields}), 201)
        return name

    async def queue(self, handler: str | None = None, **fields: Any) -> str:
        """The name of a new queue; without a handler its tasks stay where they are."""
        name = fresh("q")
        given = fields if handler is None else {"handler": handler, **fields}
        good(await self.put(f"/queues/{name}", json=given), 201)
        return name

    async def queue_to(self, url: str, **fields: Any) -> str:
        return await self.queue(await self.handler(url), **fields)

    async def limit(self, **fields: Any) -> str:
        """The name of a new limit."""
        name = fresh("l")
        good(await self.put(f"/limits/{name}", json=fields), 201)
        return name

    async def enqueue(self, queue: str, payload: Any = None, **fields: Any) -> dict[str, Any]:
        return good(await self.post(f"/queues/{queue}/tasks", json={"payload": payload, **fields}), 201)

    async def bulk(self, queue: str, tasks: Sequence[dict[str, Any]]) -> list[str]:
        """The ids of new tasks, enqueued in one request."""
        results = good(await self.post(f"/queues/{queue}/tasks/bulk", json={"tasks": tasks}))["results"]
        assert {result["status"] for result in results} == {201}
        return [result["id"] for result in results]

    async def enqueue_bytes(
        self, queue: str, body: bytes, headers: dict[str, str] | None = None, **more: Any
    ) -> httpx2.Response:
        """The body as it stands."""
        given = {"content-type": "application/json", **(headers or {})}
        return await self.post(f"/queues/{queue}/tasks", content=body, headers=given, **more)

    async def task(self, task_id: str) -> dict[str, Any]:
        return good(await self.get(f"/tasks/{task_id}"))

    async def attempts(self, task_id: str) -> list[dict[str, Any]]:
        """Newest first."""
        items: list[dict[str, Any]] = good(await self.get(f"/tasks/{task_id}/attempts"))["items"]
        return items

    async def cancel(self, task_id: str) -> httpx2.Response:
        return await self.post(f"/tasks/{task_id}/cancel")

    async def retry(self, task_id: str) -> httpx2.Response:
        return await self.post(f"/tasks/{task_id}/retry")

    async def until(self, task_id: str, state: str, **fields: Any) -> dict[str, Any]:
        """Wait until the task is in that state, with these fields."""
        wanted = {"state": state, **fields}

        async def there() -> dict[str, Any] | None:
            task = await self.task(task_id)
            return task if {name: task[name] for name in wanted} == wanted else None

        try:
            return await poll(there)
        except AssertionError:
            raise AssertionError(f"not {wanted}, but {await self.task(task_id)}") from None

    async def ended(self, task_id: str) -> dict[str, Any]:
        async def there() -> dict[str, Any] | None:
            task = await self.task(task_id)
            return None if task["state"] in UNFINISHED else task

        return await poll(there)

    async def pages(self, path: str, **params: Any) -> list[dict[str, Any]]:
        """All items of a list, page by page."""
        items: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = good(await self.get(path, params=params | ({} if cursor is None else {"cursor": cursor})))
            assert set(page) == {"items", "next_cursor"}
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return items


def good(reply: httpx2.Response, status: int = 200) -> dict[str, Any]:
    assert reply.status_code == status, f"{reply.status_code} {reply.text}"
    assert reply.headers["content-type"] == "application/json"
    found: dict[str, Any] = reply.json()
    return found


async def own_limits(api: Api) -> dict[str, Any]:
    """What the tenant may run at once over all its queues, without its named limits."""
    found = good(await api.get("/limits"))
    return {name: found[name] for name in ("max_concurrency", "granted_max_concurrency") if name in found}


def problem(reply: httpx2.Response, status: int, code: str, *pointers: str) -> dict[str, Any]:
    """The reply is this problem, in the shape of all problems; with pointers, exactly about these places."""
    assert (reply.status_code, reply.headers["content-type"]) == (status, "application/problem+json"), reply.text
    found: dict[str, Any] = reply.json()
    assert found["code"] == code, found
    assert set(found) == {"type", "title", "status", "code", "detail", "errors"}
    assert found["status"] == status and found["title"] and found["detail"]
    for error in found["errors"]:
        assert set(error) == {"pointer", "detail"} and error["detail"]
    if pointers:
        assert [error["pointer"] for error in found["errors"]] == list(pointers), found
    if status in (429, 503):
        assert int(reply.headers["retry-after"]) >= 1
    return found


def payload_span(body: bytes) -> bytes:
    """The bytes of the member `payload`, which these tests send last."""
    return body[body.index(b'"payload":') + len(b'"payload":') : -1]


async def raw(url: str, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes that no client would send, and read the answer until the connection is closed."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(request)
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        line, *lines = head[:-4].decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (text.partition(": ") for text in lines)}
        size = int(headers.get("content-length", "0"))
        body = await reader.readexactly(size) if not request.startswith(b"HEAD") else b""
    writer.close()
    return int(line.split()[1]), headers, body


def raw_code(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, str]:
    return answer[0], json.loads(answer[2])["code"]
