"""What strangers and tenants may hold of a server: raw sockets against the edge."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from app.api import bulk
from app.domain.callers import Caller
from app.domain.errors import Refusal
from app.edge.admission import Admission, Hold
from app.service import leases
from app.service.bulk import Stored
from tests.edge.edge import KEYS, Services, created, edge
from tests.edge.server import Client, answer, connected, serving
from tests.support import poll

pytestmark = pytest.mark.anyio

SOMETHING = "5f0c1a4e-8d1b-4f0e-9a55-1f6f5a4f2c11"
"""A task that is not there, or a token of none. Tests that run in several processes must bear the same names in each."""

LIVE = b"GET /health/live HTTP/1.1\r\nhost: a\r\n\r\n"


@pytest.fixture
def rival(monkeypatch: pytest.MonkeyPatch) -> None:
    """`slk_rival` is the key of another tenant."""
    monkeypatch.setitem(KEYS, "slk_rival", Caller(2, "rival", "use"))


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Services:
    found = Services(answers={"tasks.enqueue": created()})
    found.install(monkeypatch)
    return found


def head(key: str | None, length: int, path: str = "/queues/q/tasks", more: bytes = b"") -> bytes:
    authorization = b"" if key is None else b"authorization: Bearer %s\r\n" % key.encode()
    return b"POST %s HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%s%s\r\n" % (
        path.encode(),
        length,
        authorization,
        more,
    )


def enqueue(key: str | None) -> bytes:
    return head(key, 13) + b'{"payload":1}'


@asynccontextmanager
async def crowd(port: int, size: int) -> AsyncIterator[list[Client]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connected(port)) for _ in range(size)]


# Connections


async def test_a_crowd_of_silent_connections_keeps_nobody_out(services: Services) -> None:
    admission = Admission(max_connections=20)
    with capture_logs() as said:
        await be_served_in_a_crowd(admission)
    assert [(line["event"], line["limit"], line["log_level"]) for line in said] == [("connections_full", 20, "warning")]


async def be_served_in_a_crowd(admission: Admission) -> None:
    async with serving(edge(), admission=admission) as (server, port), crowd(port, 100):
        for _ in range(20):
            async with connected(port) as client, crowd(port, 5):
                client.send(enqueue("slk_use"))
                assert (await client.response())[0] == 201
        await poll(lambda: len(server.server_state.connections) <= 20)


async def test_a_caller_that_was_known_outlives_strangers(services: Services) -> None:
    async with serving(edge(), admission=Admission(max_connections=5)) as (_, port), connected(port) as client:
        client.send(enqueue("slk_use"))
        assert (await client.response())[0] == 201
        async with crowd(port, 3) as strangers:
            for stranger in strangers:
                stranger.send(LIVE)
                assert (await stranger.response())[0] == 200
            async with crowd(port, 20):
                assert [await stranger.closed() for stranger in strangers] == [b""] * 3
                client.send(enqueue("slk_use"))
                assert (await client.response())[0] == 201


async def test_where_all_connections_are_served_another_is_told_so() -> None:
    released = asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await released.wait()
        await answer(send, b"late")

    async with serving(app, admission=Admission(max_connections=2)) as (server, port), crowd(port, 2) as served:
        for client in served:
            client.send(LIVE)
        await poll(lambda: len(server.server_state.tasks) == 2)
        async with connected(port) as third:
            status, headers, body = await third.response()
            assert (status, json.loads(body)["code"], headers["retry-after"]) == (503, "unavailable", "1")
            await third.closed()
        released.set()
        assert [(await client.response())[2] for client in served] == [b"late"] * 2


async def test_servers_of_one_admission_share_its_connections() -> None:
    admission, released = Admission(max_connections=2), asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await released.wait()
        await answer(send, b"late")

    async with serving(app, admission=admission) as (_, one), serving(app, admission=admission) as (server, other):
        async with connected(one) as idle, connected(other) as first, connected(other) as second:
            await idle.closed()  # the longest idle of both makes room
            for client in (first, second):
                client.send(LIVE)
            await poll(lambda: len(server.server_state.tasks) == 2)
            for port in (one, other):
                async with connected(port) as third:
                    assert await third.problem() == (503, "unavailable")
            released.set()
            assert [(await client.response())[2] for client in (first, second)] == [b"late"] * 2
        await poll(lambda: admission.connections == 0)


async def test_a_tenant_has_at_most_half_of_all_connections_under_way(
    services: Services, rival: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = asyncio.Event()

    async def enqueue_later(_core: Any, caller: Caller, *_: Any) -> Any:
        if caller.tenant == "acme":
            await released.wait()
        return created()

    monkeypatch.setattr("app.service.tasks.enqueue", enqueue_later)
    async with serving(edge(), admission=Admission(max_connections=8)) as (server, port), crowd(port, 4) as waiting:
        for client in waiting:
            client.send(enqueue("slk_use"))
        await poll(lambda: len(server.server_state.tasks) == 4)
        async with connected(port) as fifth, connected(port) as other:
            fifth.send(enqueue("slk_use"))
            assert await fifth.problem() == (503, "unavailable")
            other.send(enqueue("slk_rival"))
            assert (await other.response())[0] == 201
            released.set()
            assert [(await client.response())[0] for client in waiting] == [201] * 4
            fifth.send(enqueue("slk_use"))
            assert (await fifth.response())[0] == 201


# Bytes


async def test_parts_of_strangers_make_way_for_whole_requests(services: Services, monkeypatch: Any) -> None:
    answers = asyncio.Event()

    async def slow_for_strangers(token: str) -> Caller:
        if token not in KEYS:
            await answers.wait()
            raise Refusal("unauthenticated", "unknown key")
        return KEYS[token]

    admission = Admission(strangers_bytes=100_000)
    async with serving(edge(authenticate=slow_for_strangers), admission=admission) as (server, port):
        async with crowd(port, 20) as strangers:
            for stranger in strangers:
                stranger.send(head("slk_unknown", 60_000) + b"x" * 30_000)
            await poll(lambda: len(server.server_state.connections) == 3)
            assert admission.strangers.size <= 100_000
            assert await strangers[0].problem() == (503, "unavailable")
            async with connected(port) as client:
                client.send(enqueue("slk_use"))
                assert (await client.response())[0] == 201
        answers.set()
        await poll(lambda: not server.server_state.tasks)
        assert admission.strangers.size == 0


async def test_heads_that_do_not_end_make_way_too(services: Services) -> None:
    admission = Admission(strangers_bytes=100_000)
    async with serving(edge(), admission=admission) as (server, port), crowd(port, 10) as strangers:
        for stranger in strangers:
            stranger.send(b"GET / HTTP/1.1\r\nx: " + b"a" * 30_000)
        await poll(lambda: len(server.server_state.connections) == 3)
        assert await strangers[0].problem() == (503, "unavailable")
        assert 0 < admission.strangers.size <= 100_000
    await poll(lambda: not server.server_state.connections)
    assert admission.strangers.size == 0


@pytest.mark.ci
async def test_the_slow_bodies_of_a_tenant_take_its_share_and_nobody_elses(services: Services, rival: None) -> None:
    admission = Admission(max_bytes=4_000_000)
    async with serving(edge(), admission=admission) as (server, port), crowd(port, 10) as uploads:
        for upload in uploads:
            upload.send(head("slk_use", 200_000) + b" " * 190_000)
        refused = await asyncio.gather(*(poll_problem(upload) for upload in uploads))
        assert refused.count((503, "unavailable")) == 5  # the others are still waited for
        async with connected(port) as other:
            other.send(head("slk_rival", 500_000) + b" " * 499_987 + b'{"payload":1}')
            assert (await other.response())[0] == 201
        for upload, found in zip(uploads, refused, strict=True):
            if found is None:
                upload.send(b" " * 9_987 + b'{"payload":1}')
                assert (await upload.response())[0] == 201
    await poll(lambda: not server.server_state.connections)
    assert admission.share_of(1).size == admission.share_of(1).requests == admission.strangers.size == 0


async def poll_problem(client: Client) -> tuple[int, str] | None:
    try:
        async with asyncio.timeout(1):
            return await client.problem()
    except TimeoutError:
        return None


def test_the_last_quarter_of_all_bytes_is_left_to_tenants_that_hold_little() -> None:
    admission = Admission(max_bytes=6_400)

    def hold(tenant: str) -> Hold:
        found = Hold(admission, Nobody())
        found.enter(tenant)
        return found

    greedy = [hold(tenant) for tenant in "abcd"]
    assert [found.add(1_600) for found in greedy] == [True, True, True, False]
    little = [hold(tenant) for tenant in "aef"]
    assert [found.add(100) for found in little] == [False, True, True]
    assert not hold("e").add(1)
    for found in (*greedy, *little):
        found.release()
        found.release()
    last = hold("g")
    assert last.add(1_600) and not last.add(1) and last.size == 0


class Nobody:
    def give_way(self) -> None:
        raise AssertionError

    def belongs_to(self, share: Any) -> None:
        pass


async def test_answers_that_nobody_reads_count_too(services: Services) -> None:
    services.answers["tasks.enqueue"] = created(b"x" * 10_000_000)
    admission = Admission(max_bytes=40_000_000)
    async with serving(edge(), admission=admission) as (server, port), crowd(port, 5) as readers:
        for reader in readers:
            reader.writer.transport.pause_reading()  # type: ignore[attr-defined]
            reader.send(enqueue("slk_use"))
        await poll(lambda: server.server_state.total_requests == 5)
        await poll(lambda: len(server.server_state.connections) < 5)
        assert admission.share_of(1).size < 20_000_000
        for reader in readers:
            reader.writer.transport.abort()
        await poll(lambda: not server.server_state.connections)
        assert admission.share_of(1).size == 0


# Places for large requests


BULK = b'{"tasks":[{"payload":1}]}'


async def test_slow_uploads_of_large_requests_take_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    async def enqueue_many(*_: Any) -> list[Stored]:
        return [Stored(True, "id")]

    monkeypatch.setattr("app.service.bulk.enqueue", enqueue_many)
    async with serving(edge()) as (server, port), crowd(port, 40) as uploads:
        for n, upload in enumerate(uploads):
            path = ("/queues/q/tasks/bulk", "/batches")[n % 2]
            upload.send(head("slk_use", len(BULK), path) + BULK[:-1])
        await poll(lambda: len(server.server_state.tasks) == 40)
        async with connected(port) as client:
            client.send(head("slk_use", len(BULK), "/queues/q/tasks/bulk") + BULK)
            assert (await client.response())[0] == 200
        uploads[0].send(BULK[-1:])
        assert (await uploads[0].response())[0] == 200


async def test_a_tenant_has_a_quarter_of_the_places_for_large_requests(
    rival: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = asyncio.Event()
    begun: list[str] = []

    async def enqueue_many(_core: Any, caller: Caller, *_: Any) -> list[Stored]:
        begun.append(caller.tenant)
        if caller.tenant == "acme":
            await released.wait()
        return [Stored(True, "id")]

    async def plan(_core: Any, caller: Caller, *_: Any) -> Any:
        raise AssertionError("it is not the turn of this tenant")

    monkeypatch.setattr("app.service.bulk.enqueue", enqueue_many)
    monkeypatch.setattr("app.service.definitions.plan", plan)
    monkeypatch.setattr(bulk, "PATIENCE_SECONDS", 0.2)
    async with serving(edge()) as (_, port), crowd(port, 5) as greedy, crowd(port, 2) as others:
        for client in greedy[:4]:
            client.send(head("slk_use", len(BULK), "/queues/q/tasks/bulk") + BULK)
        await poll(lambda: len(begun) == 4)
        greedy[4].send(head("slk_use", len(BULK), "/queues/q/tasks/bulk") + BULK)
        assert await greedy[4].problem() == (503, "unavailable")
        others[0].send(head("slk_operate", 2, "/definitions/plan") + b"{}")  # the same tenant, by another route
        assert await others[0].problem() == (503, "unavailable")
        others[1].send(head("slk_rival", len(BULK), "/queues/q/tasks/bulk") + BULK)
        assert (await others[1].response())[0] == 200
        released.set()
        assert [(await client.response())[0] for client in greedy[:4]] == [200] * 4


# What is refused by its head


@pytest.mark.parametrize(
    ("key", "path", "length", "more", "status"),
    [
        (None, "/queues/q/tasks", 1_000, b"", 401),
        ("slk_wrong", "/queues/q/tasks", 1_000, b"", 401),
        ("slk_use", "/queues/q/tasks", 3_000_000, b"", 413),
        ("slk_use", "/queues/q/tasks/bulk", 40_000_000, b"", 413),
        ("slk_use", "/batches", 40_000_000, b"", 413),
        ("slk_use", "/handlers/h/test", 1_000, b"", 403),
        ("slk_use", "/definitions/apply", 1_000, b"", 403),
        (None, f"/tasks/{SOMETHING}/complete", 1_000, b"", 401),
        (None, f"/tasks/{SOMETHING}/complete", 1_000, b"sluice-lease-token: x\r\n", 409),
        (None, "/tasks/x/fail", 1_000, b"sluice-lease-token: %s\r\n" % SOMETHING.encode(), 409),
        (None, f"/tasks/{SOMETHING}/complete", 5_000_000, b"sluice-lease-token: %s\r\n" % SOMETHING.encode(), 413),
    ],
)
async def test_a_head_that_tells_enough_is_answered_before_the_body_comes(
    key: str | None, path: str, length: int, more: bytes, status: int
) -> None:
    async with serving(edge()) as (_, port), connected(port) as client:
        client.send(head(key, length, path, more))
        assert (await client.problem())[0] == status


async def test_every_route_with_a_body_asks_for_the_key_and_the_type_before_it_reads() -> None:
    app = edge()
    document = app.application.openapi()
    routes = [
        (method.upper(), path.replace("{task_id}", str(uuid4())).replace("{batch_id}", str(uuid4())))
        for path, methods in document["paths"].items()
        for method in methods
        if method in ("post", "put", "patch")
    ]
    assert len(routes) > 30
    async with serving(app) as (_, port):
        for method, path in routes:
            path = path.replace("{", "").replace("}", "")
            plain = head("slk_operate", 1_000, path, b"sluice-lease-token: %s\r\n" % str(uuid4()).encode())
            plain = plain.replace(b"POST", method.encode()).replace(b"application/json", b"text/plain")
            unknown = head(None, 1_000, path).replace(b"POST", method.encode())
            for asked, status in ((unknown, 401), (plain, 415)):
                async with connected(port) as client:
                    client.send(asked)
                    assert (await client.problem())[0] == status, (method, path)


@pytest.mark.parametrize("refused", [True, False])
async def test_a_lease_token_is_looked_up_before_more_than_64_KiB_are_read(
    monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    asked: list[tuple[str, str]] = []

    async def tenant_of_lease(_core: Any, task_id: str, token: str) -> int:
        asked.append((task_id, token))
        if refused:
            raise leases.lease_lost()
        return 1

    async def complete(*_: Any) -> dict[str, bool]:
        return {"done": True}

    monkeypatch.setattr(leases, "tenant_of_lease", tenant_of_lease)
    monkeypatch.setattr(leases, "complete", complete)
    task_id, token = str(uuid4()), str(uuid4())
    more = b"sluice-lease-token: %s\r\n" % token.encode()
    async with serving(edge()) as (server, port), connected(port) as client:
        body = b'{"result":"%s"}' % (b"x" * 199_987)
        client.send(head(None, len(body), f"/tasks/{task_id}/complete", more) + body[:65_536])
        await poll(lambda: server.server_state.tasks)
        assert asked == []
        client.send(body[65_536:100_000])
        await poll(lambda: asked)
        if refused:
            assert await client.problem() == (409, "lease_lost")
        else:
            client.send(body[100_000:])
            assert (await client.response())[0] == 200
        assert asked == [(task_id, token)]
