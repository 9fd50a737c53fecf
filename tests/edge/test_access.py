"""Whom the edge lets in: by key and scope, by host, and by what proxies and web pages say of themselves."""

import httpx2
import pytest

from tests.edge.edge import (
    Services,
    assert_problem,
    client,
    edge,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Basic slk_use",
        "slk_use",
        "Bearer slk_nobody",
        "Bearer slk_" + "a" * 300,
    ],
)
async def test_without_a_good_key_nothing_is_read(services: Services, authorization: str | None) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    async with client(edge(), key=None) as api:
        for method, path in (
            ("GET", "/queues"),
            ("PUT", "/queues/q"),
            ("POST", "/queues/q/tasks"),
            ("GET", "/metrics"),
            ("GET", "/status"),
            ("POST", "/queues/q/pause"),
        ):
            reply = await api.request(method, path, content=b"{", headers=headers)
            assert_problem(reply, 401, "unauthenticated")
            assert reply.headers["www-authenticate"].startswith("Bearer")
        for path in ("/health/live", "/health/ready", "/openapi.json", "/docs"):
            assert (await api.get(path, headers=headers)).status_code == 200
    assert services.calls == []


@pytest.mark.parametrize(
    ("scope", "method", "path", "allowed"),
    [
        ("use", "POST", "/queues/q/tasks", True),
        ("use", "GET", "/queues", True),
        ("use", "GET", "/limits", True),
        ("use", "PUT", "/queues/q", False),
        ("use", "DELETE", "/handlers/h", False),
        ("use", "POST", "/queues/q/pause", False),
        ("use", "POST", "/handlers/h/test", False),
        ("manage", "PUT", "/queues/q", True),
        ("manage", "POST", "/handlers/h/enable", True),
        ("manage", "GET", "/status", False),
        ("manage", "GET", "/metrics", False),
        ("operate", "GET", "/status", True),
        ("operate", "GET", "/metrics", True),
        ("operate", "POST", "/queues/q/tasks", True),
    ],
)
async def test_scopes(services: Services, scope: str, method: str, path: str, allowed: bool) -> None:
    body = b'{"payload": 1}' if path.endswith("tasks") else b"{}"
    async with client(edge(), key=f"slk_{scope}") as api:
        reply = await api.request(method, path, content=body, headers={"content-type": "application/json"})
    if allowed:
        assert reply.is_success, reply.text
    else:
        assert_problem(reply, 403, "forbidden")


async def test_metrics_may_be_open() -> None:
    async with client(edge(metrics_open=True), key=None) as api:
        reply = await api.get("/metrics")
    assert (reply.status_code, reply.content) == (200, b"sluice_loop_lag_seconds 0\n")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")


HOSTS_REFUSED = [
    "example.com",
    "localhost.example.com",
    "127.0.0.1.nip.io",
    "10.0.0.1",
    "0.0.0.0",
    "[::]",
    "[::ffff:127.0.0.1]",
]
HOSTS_REFUSED += [
    "",
    "localhost:x",
    "localhost:80:80",
    "a@localhost",
    "127.1",
    "2130706433",
    "0x7f.0.0.1",
    "localhost.",
]


@pytest.mark.parametrize("host", HOSTS_REFUSED)
@pytest.mark.parametrize("path", ["/queues", "/health/live", "/docs", "/nothing"])
async def test_without_authentication_only_loopback_hosts_are_served(services: Services, host: str, path: str) -> None:
    async with client(edge(auth=False), key=None) as api:
        assert_problem(await api.get(path, headers={"host": host}), 403, "host_refused")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "127.255.0.9", "[::1]", "[::1]:8080"])
async def test_loopback_hosts_are_served(services: Services, host: str) -> None:
    async with client(edge(auth=False), key="nonsense") as api:
        reply = await api.post(
            "/queues/q/tasks", json={"payload": 1}, headers={"host": host, "origin": f"http://{host}"}
        )
    assert reply.status_code == 201
    assert services.last[0].tenant == "default"


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.com",
        "null",
        "",
        "http://localhost.evil",
        "localhost",
        "file://",
        "http://localhost/",
        "chrome://localhost",
    ],
)
async def test_web_pages_from_elsewhere_are_refused(services: Services, origin: str) -> None:
    async with client(edge(auth=False), key=None) as api:
        reply = await api.post("/queues/q/tasks", json={"payload": 1}, headers={"origin": origin})
    assert_problem(reply, 403, "host_refused")
    assert services.calls == []


PROXIED = [
    "Forwarded",
    "Via",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Anything",
    "X-Real-IP",
]


@pytest.mark.parametrize("name", PROXIED)
@pytest.mark.parametrize("path", ["/queues", "/health/live", "/docs"])
async def test_without_authentication_what_a_proxy_passes_on_is_refused(
    services: Services, name: str, path: str
) -> None:
    """The proxy is on this machine, its callers may be anywhere."""
    async with client(edge(auth=False), key=None) as api:
        said = assert_problem(await api.get(path, headers={name: "127.0.0.1"}), 403, "host_refused")
    assert name.lower() in said["detail"] and "SLUICE_AUTH=on" in said["detail"]


@pytest.mark.parametrize(
    ("site", "served"),
    [("same-origin", True), ("none", True), ("same-site", False), ("cross-site", False), ("", False)],
)
async def test_without_authentication_pages_of_other_sites_are_refused(
    services: Services, site: str, served: bool
) -> None:
    """A request without a body that a page makes carries no Origin."""
    async with client(edge(auth=False), key=None) as api:
        reply = await api.get("/queues", headers={"sec-fetch-site": site})
    if served:
        assert reply.status_code == 200
    else:
        assert_problem(reply, 403, "host_refused")


async def test_with_authentication_any_host_is_served(services: Services) -> None:
    foreign = {"host": "queue.example.com", "origin": "https://example.com", "sec-fetch-site": "cross-site"}
    async with client(edge()) as api:
        reply = await api.get("/queues", headers={**foreign, **dict.fromkeys(PROXIED, "10.0.0.1")})
    assert reply.status_code == 200


@pytest.mark.parametrize("name", ["authorization", "host", "content-type", "idempotency-key"])
async def test_a_header_that_means_one_thing_comes_once(api: httpx2.AsyncClient, name: str) -> None:
    headers = [("content-type", "application/json"), ("host", "localhost"), ("authorization", "Bearer slk_use")]
    reply = await api.post("/queues/q/tasks", content=b"{}", headers=[*headers, (name, "a"), (name, "b")])
    assert_problem(reply, 400, "malformed")
