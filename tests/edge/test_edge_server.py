"""The server against clients that stall, flood and leave: raw sockets."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from app.edge import corked, protocol
from app.edge.protocol import MAX_PIPELINED, EdgeProtocol, EdgeServerConfig
from app.edge.server import EdgeServer
from tests.edge.edge import edge
from tests.edge.server import Client, answer, connected, echo, serving
from tests.support import poll

pytestmark = [pytest.mark.ci, pytest.mark.anyio]


@pytest.fixture(params=[pytest.param(False, id="asyncio"), pytest.param(True, id="uvloop")])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


POST = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"


async def test_requests_and_keep_alive_work_as_ever() -> None:
    async with serving(echo) as (_, port), connected(port) as client:
        for _ in range(3):
            client.send(POST + b"abcde")
            assert (await client.response())[::2] == (200, b"abcde")
        client.send(POST + b"first" + POST + b"again" + GET)
        assert [(await client.response())[2] for _ in range(3)] == [b"first", b"again", b""]


@pytest.mark.parametrize("begun", [b"GET /", b"POST / HTTP/1.1\r\nhost: a\r\nx-long: aaaa", POST[:-2]])
async def test_a_head_that_never_ends_is_cut(begun: bytes) -> None:
    async with serving(echo, head_seconds=0.1) as (_, port), connected(port) as client:
        client.send(begun)
        assert await client.problem() == (408, "request_timeout")
        assert await client.closed() == b""


async def test_a_head_that_trickles_in_is_cut_at_one_deadline() -> None:
    async with serving(echo, head_seconds=0.3) as (_, port), connected(port) as client:

        async def trickle() -> None:
            for byte in GET[:-1] * 100:
                client.send(bytes([byte]))
                await asyncio.sleep(0.01)

        trickling = asyncio.create_task(trickle())
        assert await client.problem() == (408, "request_timeout")
        trickling.cancel()


async def test_silence_is_no_request() -> None:
    async with serving(echo, head_seconds=0.1) as (_, port), connected(port) as client:
        assert await client.closed() == b""


async def test_blank_lines_between_requests_do_not_hold_a_connection() -> None:
    async with serving(echo, head_seconds=0.2, timeout_keep_alive=60) as (_, port), connected(port) as client:
        client.send(GET)
        await client.response()
        client.send(b"\r\n\r\n")
        assert await client.closed() == b""


@pytest.mark.parametrize("head", [POST, POST.replace(b"content-length: 5", b"transfer-encoding: chunked")])
async def test_a_body_that_never_ends_is_cut(head: bytes) -> None:
    gone = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await echo(scope, receive, send)
        gone.set()

    async with serving(app, body_seconds=0.1) as (_, port), connected(port) as client:
        client.send(head + b"3\r\n")
        assert await client.problem() == (408, "request_timeout")
        assert await client.closed() == b""
        async with asyncio.timeout(5):
            await gone.wait()


async def test_many_stalled_clients_are_all_cut() -> None:
    async with serving(echo, head_seconds=0.5) as (server, port):
        clients = [Client(*await asyncio.open_connection("127.0.0.1", port)) for _ in range(200)]
        for client in clients:
            client.send(b"POST /queues/q/tasks HTTP/1.1\r\n")
        for client in clients:
            # On a busy machine the first are cut before they have said a word, and then without one.
            assert (await client.closed())[:12] in (b"HTTP/1.1 408", b"")
            client.writer.close()
        await poll(lambda: not server.server_state.connections)


async def test_a_slow_application_is_not_the_clients_fault() -> None:
    released = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await released.wait()
        await echo(scope, receive, send)

    async with serving(app, head_seconds=0.3, body_seconds=0.3) as (_, port), connected(port) as client:
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 300000\r\n\r\n" + b"x" * 300_000)
        await client.writer.drain()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.6):
                await client.reader.read(1)
        released.set()
        assert (await client.response())[0] == 200


async def test_the_clock_of_a_body_starts_again_when_it_is_read_on() -> None:
    released, resumed = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await released.wait()
        first = await receive()
        resumed.set()
        assert first["more_body"]
        await echo(scope, receive, send)

    limits: dict[str, Any] = {"body_seconds": 1.0, "least_bytes_per_second": 1e9}
    async with serving(app, **limits) as (_, port), connected(port) as client:
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 300000\r\n\r\n" + b"x" * 299_999)
        await client.writer.drain()
        await asyncio.sleep(0.8)
        released.set()
        await resumed.wait()
        await asyncio.sleep(0.5)  # beyond the deadline that began when nobody read
        client.send(b"x")
        assert (await client.response())[0] == 200


async def test_an_answer_may_take_longer_than_any_deadline_of_a_request() -> None:
    released = asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await released.wait()
        await answer(send, b"late")

    async with serving(app, head_seconds=0.05, body_seconds=0.05) as (_, port), connected(port) as client:
        client.send(GET)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await client.reader.read(1)
        released.set()
        assert (await client.response())[2] == b"late"


def head_of(headers: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nhost: localhost\r\n" + headers + b"\r\n"


@pytest.mark.parametrize(
    "flood",
    [
        head_of(b"".join(b"x-%d: 1\r\n" % n for n in range(101))),
        head_of(b"x: " + b"a" * 70_000 + b"\r\n"),
        head_of(b"".join(b"x-%d: %s\r\n" % (n, b"a" * 3000) for n in range(30))),
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
        head_of(b"x" * 70_000 + b": 1\r\n"),
        b"GET / HTTP/1.1\r\nx: " + b"a" * 200_000,
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: " + b"a" * 200_000,
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1;" + b"a" * 200_000,
    ],
    ids=[
        "many",
        "long value",
        "long together",
        "long url",
        "long name",
        "endless value",
        "endless trailer",
        "endless extension",
    ],
)
async def test_a_flood_of_headers_is_refused(flood: bytes) -> None:
    async with serving(echo) as (_, port), connected(port) as client:
        client.send(flood)
        assert await client.problem() == (431, "headers_too_large")


async def test_what_the_server_answers_by_itself_is_counted_and_the_rest_is_not() -> None:
    counted: list[tuple[str, str, int, float]] = []

    def meter(method: str, route: str, status: int) -> Callable[[float], None]:
        return lambda seconds: counted.append((method, route, status, seconds))

    async with serving(echo, head_seconds=0.1, body_seconds=0.1, request_meter=meter) as (_, port):
        async with connected(port) as client:
            client.send(GET + GET)
            assert [(await client.response())[0] for _ in range(2)] == [200, 200]
        assert counted == []
        for part in (b"NONSENSE\r\n\r\n", head_of(b"x: " + b"a" * 70_000 + b"\r\n"), GET[:-2], POST + b"fir"):
            async with connected(port) as client:
                client.send(part)
                await client.problem()
    assert [one[:3] for one in counted] == [("other", "other", status) for status in (400, 431, 408, 408)]
    assert [seconds > 0.05 for *_, seconds in counted] == [False, False, True, True]


async def test_a_head_within_the_limits_passes() -> None:
    async with serving(echo) as (_, port), connected(port) as client:
        client.send(head_of(b"".join(b"x-%d: %s\r\n" % (n, b"a" * 600) for n in range(99))))
        assert (await client.response())[0] == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"NONSENSE\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost a\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: a\x00b\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -5\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_what_is_no_request_is_a_problem_too(request_bytes: bytes) -> None:
    async with serving(echo) as (_, port), connected(port) as client:
        client.send(request_bytes)
        assert await client.problem() == (400, "malformed")
        assert await client.closed() == b""


def connections_of(server: EdgeServer) -> list[EdgeProtocol]:
    return [connection for connection in server.server_state.connections if isinstance(connection, EdgeProtocol)]


@pytest.mark.parametrize("whole", [1, 3])
@pytest.mark.parametrize(
    "faulty",
    [
        b"\0",
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"x" * 70_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhelloNONSENSE",
    ],
    ids=["byte", "head", "too large", "transfer-encoding", "body"],
)
async def test_what_came_before_a_faulty_request_is_answered_and_nothing_after(faulty: bytes, whole: int) -> None:
    released = asyncio.Event()
    served = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        await released.wait()
        served.append(scope)
        await answer(send, b"%d" % len(served))

    async with serving(app) as (server, port), connected(port) as client:
        client.send(GET * whole + faulty + GET)
        await poll(lambda: any(connection._ignoring for connection in connections_of(server)))
        released.set()
        answers = [await client.response() for _ in range(whole)]
        assert [(status, body) for status, _, body in answers] == [(200, b"%d" % n) for n in range(1, whole + 1)]
        if whole > 1 or b"chunked" not in faulty:  # there, the only one was under way already
            assert answers[-1][1]["connection"] == "close"
        assert await client.closed() == b""
        assert len(served) == whole


async def test_a_request_that_stays_unfinished_costs_the_one_before_no_answer() -> None:
    released = asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await released.wait()
        await answer(send, b"first")

    async with serving(app, head_seconds=0.1) as (server, port), connected(port) as client:
        client.send(GET + b"GET / HT")
        await poll(lambda: any(connection._ignoring for connection in connections_of(server)))
        released.set()
        status, _, body = await client.response()
        assert (status, body) == (200, b"first")
        assert await client.closed() == b""


async def test_a_connection_that_gives_way_does_so_at_once() -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await asyncio.Event().wait()

    async with serving(app) as (server, port), connected(port) as client:
        client.send(GET + b"GET / HT")
        await poll(lambda: any(connection._phase.name == "HEAD" for connection in connections_of(server)))
        [connection] = connections_of(server)
        connection.give_way()
        assert await client.closed() == b""


async def test_a_refused_body_leaves_the_connection_usable() -> None:
    async with serving(edge(max_payload_bytes=10)) as (_, port), connected(port) as client:
        head = b"POST /queues/q/tasks HTTP/1.1\r\nhost: a\r\nauthorization: Bearer slk_use\r\ncontent-type: application/json\r\n"
        client.send(head + b"content-length: 300000\r\n\r\n")
        assert await client.problem() == (413, "too_large")
        client.send(b" " * 300_000 + b"GET /health/live HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await client.response())[2] == b'{"status":"ok"}\n'


@pytest.mark.parametrize(
    "codings",
    [
        b"transfer-encoding: gzip, chunked",
        b"transfer-encoding: gzip",
        b"transfer-encoding: gzip\r\ntransfer-encoding: chunked",
    ],
)
async def test_a_transfer_coding_other_than_chunked_is_not_implemented(codings: bytes) -> None:
    async with serving(echo) as (_, port), connected(port) as client:
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\n" + codings + b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        assert await client.problem() == (501, "not_implemented")
        assert await client.closed() == b""


async def test_a_trailer_is_no_header() -> None:
    seen: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await echo(scope, receive, send)
        seen.extend(name for name, _ in scope["headers"])

    async with serving(app) as (_, port), connected(port) as client:
        head = b"POST / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"
        client.send(head + b"3\r\nabc\r\n0\r\nauthorization: Bearer x\r\n\r\n")
        assert (await client.response())[2] == b"abc"
        assert seen == [b"host", b"transfer-encoding"]


UPGRADE = b"host: a\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"


@pytest.mark.parametrize("framing", [b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n"])
@pytest.mark.parametrize("split", [None, 4, 6], ids=["in one", "after the head", "in the body"])
async def test_a_body_that_follows_an_offer_to_upgrade_is_read_and_no_request_hides_in_it(
    framing: bytes, split: int | None
) -> None:
    body = b"GET /" if framing.startswith(b"content-length") else b"5\r\nGET /\r\n0\r\n\r\n"
    whole = b"POST / HTTP/1.1\r\n" + UPGRADE + framing + b"\r\n" + body + b" HTTP/1.1\r\nhost: a\r\n\r\n"
    async with serving(echo) as (server, port), connected(port) as client:
        cut = len(whole) if split is None else whole.index(b"\r\n\r\n") + split
        client.send(whole[:cut])
        if split is not None:
            await poll(lambda: server.server_state.tasks)
            client.send(whole[cut:])
        status, headers, echoed = await client.response()
        assert (status, headers["connection"], echoed) == (200, "close", b"GET /")
        assert await client.closed() == b""


async def test_an_offer_to_upgrade_without_a_body_is_passed_over() -> None:
    async with serving(echo) as (_, port), connected(port) as client:
        client.send(b"GET / HTTP/1.1\r\n" + UPGRADE + b"\r\n")
        assert (await client.response())[0] == 200
        assert await client.closed() == b""


async def test_a_body_may_take_long_at_a_rate_and_no_longer_below_it() -> None:
    async def trickle(client: Client, bytes_each: int) -> None:
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 60\r\n\r\n")
        for _ in range(60 // bytes_each):
            client.send(b"x" * bytes_each)
            await asyncio.sleep(0.05)

    limits: dict[str, Any] = {"body_seconds": 0.2, "least_bytes_per_second": 50}
    async with serving(echo, **limits) as (_, port), connected(port) as slow, connected(port) as slower:
        trickling = [asyncio.create_task(trickle(client, each)) for client, each in ((slow, 5), (slower, 1))]
        assert await slower.problem() == (408, "request_timeout")
        assert (await slow.response())[2] == b"x" * 60
        trickling[1].cancel()


async def test_requests_beyond_those_that_may_wait_are_left_to_another_connection() -> None:
    released = asyncio.Event()
    begun = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal begun
        begun += 1
        await released.wait()
        await echo(scope, receive, send)

    async with serving(app) as (_, port), connected(port) as client:
        client.send(GET * 5_000)
        await poll(lambda: begun)
        released.set()
        answers = [await client.response() for _ in range(MAX_PIPELINED + 1)]
        assert [headers.get("connection") for _, headers, _ in answers] == [None] * MAX_PIPELINED + ["close"]
        assert await client.closed() == b""
        assert begun == len(answers)


@pytest.mark.parametrize("size", [8_000_000, 40_000_000])
async def test_a_client_that_does_not_read_its_answers_is_cut_off(size: int) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, b"x" * size)

    async with serving(app, read_seconds=0.1) as (server, port), connected(port) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(GET * 3)
        await poll(lambda: server.server_state.total_requests)
        await poll(lambda: not server.server_state.connections)


async def test_a_client_that_reads_slowly_but_at_a_rate_gets_its_whole_answer() -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, b"x" * 20_000_000)

    async with serving(app, read_seconds=0.2, least_bytes_per_second=1_000_000) as (_, port), connected(port) as client:
        client.send(GET)
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b"content-length: 20000000" in head
        for _ in range(20):
            await client.reader.readexactly(1_000_000)
            await asyncio.sleep(0.05)


async def test_a_closed_connection_does_not_wait_for_ever_for_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corked, "LINGER_SECONDS", 0.1)

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"30000"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * 30_000})

    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    async with serving(app, listener=listener) as (server, port):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.connect(("127.0.0.1", port))
            client.sendall(GET)
            await poll(lambda: server.server_state.total_requests)
            assert server.server_state.connections
            await poll(lambda: not server.server_state.connections)


@pytest.mark.parametrize("head", [b"HTTP/1.0\r\n", b"HTTP/1.1\r\nconnection: close\r\n"])
async def test_a_client_that_still_sends_its_body_can_read_why_it_is_refused(head: bytes) -> None:
    """Many clients read no answer before they have sent their request, and keep no connection."""
    async with serving(edge()) as (server, port), connected(port) as client:
        client.send(b"POST /queues/q/tasks " + head + b"host: a\r\ncontent-length: 20000000\r\n\r\n")
        for _ in range(200):
            client.send(b"x" * 100_000)
            await client.writer.drain()
        assert await client.problem() == (401, "unauthenticated")
        assert await client.closed() == b""
        await poll(lambda: not server.server_state.connections)


@pytest.mark.parametrize("more", [b"", b"connection: close\r\n", b"expect: 100-continue\r\n"])
async def test_a_refused_body_that_does_not_come_is_not_waited_for(more: bytes) -> None:
    async with serving(edge(), body_seconds=0.2) as (server, port), connected(port) as client:
        client.send(b"POST /queues/q/tasks HTTP/1.1\r\nhost: a\r\ncontent-length: 2000\r\n" + more + b"\r\nx")
        assert await client.problem() == (401, "unauthenticated")
        await poll(lambda: not server.server_state.connections)


async def test_a_stop_waits_for_no_refused_body() -> None:
    async with serving(edge()) as (server, port), connected(port) as client:
        client.send(b"POST /queues/q/tasks HTTP/1.1\r\nhost: a\r\ncontent-length: 2000\r\n\r\nx")
        assert await client.problem() == (401, "unauthenticated")
        server.stop()
        await poll(lambda: not server.server_state.connections)


async def test_a_stop_is_noticed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.edge.server.TICK_SECONDS", 3600.0)
    async with asyncio.timeout(10), serving(echo):
        pass


async def test_a_refused_body_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_DRAINED_BYTES", 1_000_000)
    async with serving(edge()) as (server, port), connected(port) as client:
        client.send(b"POST /queues/q/tasks HTTP/1.1\r\nhost: a\r\ncontent-length: 10000000000\r\n\r\n")
        assert await client.problem() == (401, "unauthenticated")

        async def flood() -> None:
            for _ in range(1_000):
                client.send(b"x" * 65_536)
                await client.writer.drain()

        with pytest.raises(ConnectionError):
            await flood()
        await poll(lambda: not server.server_state.connections)


async def test_a_client_that_was_not_asked_for_its_body_cannot_be_misread() -> None:
    head = (
        b"POST /queues/q/tasks HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        b"expect: 100-continue\r\ncontent-length: 100\r\n"
    )
    async with serving(edge()) as (_, port):
        async with connected(port) as client:
            client.send(head + b"\r\n")
            status, headers, _ = await client.response()
            assert (status, headers["connection"]) == (401, "close")
            assert await client.closed() == b""
        async with connected(port) as client:
            client.send(head + b"authorization: Bearer slk_use\r\n\r\n")
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(b"x" * 100)
            status, headers, _ = await client.response()
            assert (status, "connection" in headers) == (400, False)


async def test_a_client_that_leaves_in_mid_body_is_forgotten() -> None:
    async with serving(edge()) as (server, port):
        async with connected(port) as client:
            client.send(
                b"POST /queues/q/tasks HTTP/1.1\r\nhost: a\r\nauthorization: Bearer slk_use\r\n"
                b"content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
            )
            await poll(lambda: server.server_state.tasks)
        await poll(lambda: not server.server_state.tasks)


async def test_a_request_without_a_host_is_malformed() -> None:
    async with serving(edge()) as (_, port), connected(port) as client:
        client.send(b"GET /health/live HTTP/1.1\r\n\r\n")
        assert await client.problem() == (400, "malformed")


async def test_head_has_no_body() -> None:
    async with serving(edge()) as (_, port), connected(port) as client:
        client.send(b"HEAD /health/live HTTP/1.1\r\nhost: a\r\n\r\n" + b"GET /health/live HTTP/1.1\r\nhost: a\r\n\r\n")
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b"200 OK" in head and b"content-length: 16" in head
        assert (await client.response())[2] == b'{"status":"ok"}\n'


# Signals


async def test_the_first_signal_asks_for_a_drain_and_the_second_skips_it() -> None:
    async with serving(echo) as (server, port), connected(port) as client:
        server.handle_exit(signal.SIGTERM, None)
        async with asyncio.timeout(5):
            await server.draining.wait()
        assert not server.hurried.is_set()
        client.send(GET)
        assert (await client.response())[0] == 200
        assert not server.should_exit
        server.handle_exit(signal.SIGINT, None)
        async with asyncio.timeout(5):
            await server.hurried.wait()
        assert server.should_exit


async def test_a_real_signal_drains_and_leaves_no_trace() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = EdgeServer(EdgeServerConfig(echo, log_config=None, access_log=False))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await poll(lambda: server.started)
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(5):
        await server.draining.wait()
        assert not task.done()
        server.stop()
        await task
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
