"""The hot route answers without ASGI's messages, and nobody can tell: raw sockets against the edge."""

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import pytest

from app.edge.admission import Admission, Hold
from app.edge.exchange import Exchange
from tests.edge.edge import Services, created, edge
from tests.edge.server import Client, connected, serving
from tests.support import poll

pytestmark = pytest.mark.anyio

BODY = b'{"payload":1}'
MINE = b"x-request-id: mine\r\n"


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Services:
    found = Services(answers={"tasks.enqueue": created()})
    found.install(monkeypatch)
    return found


def post(more: bytes = b"", body: bytes = BODY, version: bytes = b"1.1") -> bytes:
    return (
        b"POST /queues/q/tasks HTTP/%s\r\nhost: a\r\nauthorization: Bearer slk_use\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n%s\r\n%s" % (version, len(body), more, body)
    )


@pytest.mark.parametrize(
    ("request_bytes", "stays_open"),
    [
        (post(MINE), True),
        (post(MINE + b"connection: close\r\n"), False),
        (post(MINE, version=b"1.0"), False),
        (post(MINE, body=b'{"payload":'), True),
    ],
)
async def test_it_answers_as_the_server_does(services: Services, request_bytes: bytes, stays_open: bool) -> None:
    async def answered(**config: Any) -> tuple[int, dict[str, str], bytes, bool]:
        async with serving(edge(**config)) as (server, port), connected(port) as client:
            client.send(request_bytes)
            answer = await client.response()
            closed = not stays_open and await client.closed() == b""
            await poll(lambda: not server.server_state.tasks)
            if stays_open:
                client.send(post())
                assert (await client.response())[0] == 201
            answer[1].pop("date")
            return *answer, closed

    # with tracing, the router serves the route
    assert await answered() == await answered(tracing=True)


async def test_a_body_that_comes_in_parts_is_waited_for(services: Services) -> None:
    async with serving(edge()) as (server, port), connected(port) as client:
        whole = post()
        client.send(whole[:-5])
        await poll(lambda: server.server_state.tasks)
        client.send(whole[-5:])
        assert (await client.response())[0] == 201
    assert services.calls[-1][0] == "tasks.enqueue"


async def test_requests_that_come_together_are_answered_in_their_order(services: Services) -> None:
    async with serving(edge()) as (_, port), connected(port) as client:
        client.send(b"".join(post(b"x-request-id: %d\r\n" % n) for n in range(3)))
        answers = [await client.response() for _ in range(3)]
    assert [(status, headers["x-request-id"]) for status, headers, _ in answers] == [(201, str(n)) for n in range(3)]


async def test_a_body_that_is_too_large_is_left_to_who_refuses_it() -> None:
    # reading pauses after 64 KiB until somebody wants the rest, so on a socket such a body does not arrive whole
    cycle: Any = SimpleNamespace(more_body=False, body=bytearray(b"x" * 21))
    exchange = Exchange(cycle, Hold(Admission(), cycle))
    assert exchange.arrived(20) is None
    assert exchange.arrived(21) == b"x" * 21


async def test_a_body_that_there_is_no_room_for_is_not_taken_for_an_empty_one(services: Services) -> None:
    admission = Admission(max_bytes=4_000, strangers_bytes=100)
    async with serving(edge(), admission=admission) as (_, port), connected(port) as client:
        client.send(post(body=b'{"payload":"%s"}' % (b"x" * 500)))
        assert await client.problem() == (503, "unavailable")
        client.send(post())
        assert (await client.response())[0] == 201


async def test_a_client_that_does_not_read_gets_one_answer_after_the_other(services: Services) -> None:
    services.answers["tasks.enqueue"] = created(b"x" * 10_000_000)
    async with serving(edge()) as (server, port), connected(port) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(post())
        await poll(lambda: server.server_state.total_requests == 1)
        client.send(post())
        await poll(lambda: len(services.calls) == 2)
        await poll(lambda: server.server_state.tasks)
        assert server.server_state.total_requests == 1
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(2):
            assert (await client.response())[0] == 201
        assert server.server_state.total_requests == 2


async def test_a_client_that_has_gone_gets_nothing(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def meter(_method: str, _route: str, status: int) -> Any:
        return lambda _seconds: counted.append(status)

    services.answers["tasks.enqueue"] = created(b"x" * 10_000_000)
    async with serving(edge(request_meter=meter)) as (server, port):
        async with connected(port) as client:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            client.send(post())
            await poll(lambda: counted == [201])
            client.send(post())
            await poll(lambda: len(services.calls) == 2)
            client.writer.transport.abort()
        await poll(lambda: not server.server_state.tasks)
    assert counted == [201, 201]


async def test_no_request_is_left_to_the_garbage_collector(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Any]] = []
    real = Exchange.__init__

    def noting(self: Exchange, cycle: Any, hold: Any) -> None:
        made.append(weakref.ref(cycle))
        real(self, cycle, hold)

    monkeypatch.setattr(Exchange, "__init__", noting)
    async with serving(edge()) as (_, port), connected(port) as client:
        gc.disable()
        try:
            for _ in range(3):
                await _posted(client)
            assert [cycle() is None for cycle in made[:-1]] == [True, True]
        finally:
            gc.enable()


async def _posted(client: Client) -> None:
    client.send(post())
    assert (await client.response())[0] == 201
