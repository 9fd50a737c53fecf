"""Requests are counted by the route that serves them, so that nothing a client makes up becomes a series."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from app.domain.errors import Refusal
from app.telemetry.metrics import Metrics
from tests.edge.edge import Services, client, edge

pytestmark = pytest.mark.anyio

ROUNDS = 9
REQUESTS = 200


@pytest.mark.parametrize("tracing", [False, True])
async def test_a_request_is_counted_by_method_route_and_status(services: Services, tracing: bool) -> None:
    counted: list[tuple[str, str, int]] = []

    def meter(method: str, route: str, status: int) -> Callable[[float], None]:
        return lambda seconds: counted.append((method, route, status)) if 0 < seconds < 60 else None

    async with client(edge(tracing=tracing, request_meter=meter)) as api:
        await api.post("/queues/mail/tasks", json={"payload": 1})
        await api.post("/queues/mail/tasks", json={})
        await api.put("/queues/mail", json={})
        await api.get("/queues/mail", headers={"authorization": "Bearer slk_nobody"})
        await api.head("/health/live")
        await api.get("/openapi.json")
        await api.post("/queues/mail/tasks/bulk", content=b"", headers={"content-type": "text/plain"})
        await api.get("/nobody/knows/this")
        await api.request("PROPFIND", "/queues/mail")
        await api.request("DELETE", "/health/live")
        services.answers["tasks.enqueue"] = Refusal("unavailable", "down")
        await api.post("/queues/mail/tasks", json={"payload": 1})
        services.answers["tasks.enqueue"] = RuntimeError("boom")
        await api.post("/queues/mail/tasks", json={"payload": 1})
    assert counted == [
        ("POST", "/queues/{name}/tasks", 201),
        ("POST", "/queues/{name}/tasks", 422),
        ("PUT", "/queues/{name}", 200),
        ("GET", "/queues/{name}", 401),
        ("GET", "/health/live", 200),
        ("GET", "/openapi.json", 200),
        ("POST", "/queues/{name}/tasks/bulk", 415),
        ("GET", "other", 404),
        ("other", "/queues/{name}", 405),
        ("DELETE", "/health/live", 405),
        ("POST", "/queues/{name}/tasks", 503),
        ("POST", "/queues/{name}/tasks", 500),
    ]


async def test_counting_a_request_is_a_small_part_of_an_enqueue(services: Services) -> None:
    """0.5 us; a real one takes the replica 50 to 80 us. Here without a socket, a server and a database."""
    plain, counting = edge(), edge(request_meter=Metrics().request_meter)
    body = b'{"payload": 1}'
    headers = [
        (b"host", b"localhost"),
        (b"authorization", b"Bearer slk_operate"),
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
    ]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        assert message.get("status", 201) == 201

    async def seconds(app: Any) -> float:
        begun = time.perf_counter()
        for _ in range(REQUESTS):
            scope = {
                "type": "http",
                "http_version": "1.1",
                "method": "POST",
                "path": "/queues/q/tasks",
                "headers": headers,
            }
            await app({**scope, "query_string": b"", "client": ("127.0.0.1", 1)}, receive, send)
        return (time.perf_counter() - begun) / REQUESTS

    best = {"plain": 1.0, "counting": 1.0}
    for _ in range(ROUNDS):
        best["plain"] = min(best["plain"], await seconds(plain))
        best["counting"] = min(best["counting"], await seconds(counting))
    cost = best["counting"] - best["plain"]
    print(f"counting a request: {cost * 1e6:.2f} us of {best['counting'] * 1e6:.1f} us in the edge alone")
    assert cost < best["plain"] / 2
