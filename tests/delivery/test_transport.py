"""The client on good days: what is sent, what is read, which connections are used again."""

import asyncio
import socket
import threading
from collections import deque

import pytest

from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.errors import DeliveryError
from app.delivery.webhook.transport import Transport
from app.domain.answers import MAX_FOLLOWUP_BYTES, is_followups

from .posting import post
from .servers import OK, Behaviour, Peer, answer, answer_ok, serve

pytestmark = pytest.mark.anyio


async def test_a_request_is_one_post_with_its_framing_and_the_headers_it_was_given(transport: Transport) -> None:
    async with serve(answer_ok) as server:
        headers = [("content-type", "application/json"), ("x-letter", "\xe9")]
        await post(transport, server.url + "?a=1", headers, b'{"n":1}', tenant="t", timeout_seconds=5)
    (request,) = server.requests
    assert request.line == "POST /hook?a=1 HTTP/1.1"
    assert request.headers == [
        ("host", f"127.0.0.1:{server.port}"),
        ("accept-encoding", "identity"),
        ("content-type", "application/json"),
        ("x-letter", "\xe9"),
        ("content-length", "7"),
    ]
    assert request.body == b'{"n":1}'


async def test_a_reply_has_lower_case_names_and_joins_repeated_headers(transport: Transport) -> None:
    reply = b"HTTP/1.1 418 Teapot\r\nX-A: one\r\nx-a: two\r\nX-B:  \xe9 \r\nContent-Length: 3\r\n\r\npot"
    async with serve(answer(reply)) as server:
        got = await post(transport, server.url, [], b"", tenant="t", timeout_seconds=5)
    assert (got.status, got.body, got.truncated) == (418, b"pot", False)
    assert got.headers == {"x-a": "one, two", "x-b": "\xe9", "content-length": "3"}


async def test_a_connection_is_kept_for_the_next_call(transport: Transport) -> None:
    async with serve(answer_ok) as server:
        for _ in range(10):
            await post(transport, server.url, [], b"x", tenant="t", timeout_seconds=5)
    assert (server.connections, len(server.requests)) == (1, 10)


async def test_many_calls_at_once_each_get_their_own_answer(transport: Transport) -> None:
    async def echo(peer: Peer) -> None:
        while True:
            body = (await peer.read()).body
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    async def caller(name: int) -> None:
        for turn in range(20):
            sent = f"{name}-{turn}".encode()
            assert (await post(transport, server.url, [], sent, tenant="t", timeout_seconds=5)).body == sent

    async with serve(echo) as server:
        await asyncio.gather(*(caller(name) for name in range(32)))
        assert server.connections <= 32
        assert len(server.requests) == 640


async def test_a_connection_outlives_the_verdict_when_the_next_one_names_its_address_again() -> None:
    transport = Transport(EgressPolicy(["127.0.0.1"], kept_seconds=0))
    async with serve(answer_ok) as server:
        for _ in range(3):
            await post(transport, server.url, [], b"", tenant="t", timeout_seconds=5)
        assert server.connections == 1
        await transport.aclose()


async def test_a_large_body_goes_out_whole(transport: Transport) -> None:
    body = bytes(range(256)) * 4096
    async with serve(answer_ok) as server:
        await post(transport, server.url, [], body, tenant="t", timeout_seconds=5)
    assert server.requests[0].body == body


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x=1\r\nabc\r\n2\r\nde\r\n0\r\ntrailer: t\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nlink: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabcde",
    ],
)
async def test_chunks_and_interim_replies_are_read_and_the_connection_kept(transport: Transport, reply: bytes) -> None:
    async with serve(answer(reply)) as server:
        for _ in range(2):
            got = await post(transport, server.url, [], b"", tenant="t", timeout_seconds=5)
            assert (got.status, got.body) == (200, b"abcde")
            assert "trailer" not in got.headers
            assert "link" not in got.headers
    assert server.connections == 1


@pytest.mark.parametrize("head", [b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 200 OK\r\n"])
async def test_a_body_without_framing_ends_with_the_connection(transport: Transport, head: bytes) -> None:
    async with serve(answer(head + b"\r\nto the end", keep=False)) as server:
        for _ in range(2):
            assert (await post(transport, server.url, [], b"", tenant="t", timeout_seconds=5)).body == b"to the end"
    assert server.connections == 2


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nkeep-alive: timeout=1\r\ncontent-length: 2\r\n\r\nok",
    ],
)
async def test_a_connection_that_the_handler_will_close_is_not_used_again(transport: Transport, reply: bytes) -> None:
    async with serve(answer(reply)) as server:
        for _ in range(2):
            assert (await post(transport, server.url, [], b"", tenant="t", timeout_seconds=5)).body == b"ok"
    assert server.connections == 2


@pytest.mark.parametrize("status", [204, 304])
async def test_a_reply_without_a_body_keeps_its_connection(transport: Transport, status: int) -> None:
    async with serve(answer(b"HTTP/1.1 %d None\r\n\r\n" % status)) as server:
        for _ in range(2):
            got = await post(transport, server.url, [], b"", tenant="t", timeout_seconds=5)
            assert (got.status, got.body) == (status, b"")
    assert server.connections == 1


async def test_a_body_of_exactly_the_cap_is_whole_and_one_byte_more_is_cut(transport: Transport) -> None:
    async def sized(peer: Peer) -> None:
        while True:
            size = int((await peer.read()).body)
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)

    async with serve(sized) as server:
        whole = await post(transport, server.url, [], b"1000", tenant="t", timeout_seconds=5, max_reply_bytes=1000)
        cut = await post(transport, server.url, [], b"1001", tenant="t", timeout_seconds=5, max_reply_bytes=1000)
    assert (len(whole.body), whole.truncated) == (1000, False)
    assert (len(cut.body), cut.truncated) == (1000, True)


def sized(status: bytes, head: bytes, *, chunked: bool = False) -> Behaviour:
    """Answers with as many bytes as the request's body says."""

    async def behave(peer: Peer) -> None:
        while True:
            size = int((await peer.read()).body)
            if chunked:
                pieces = b"4000\r\n" + b"x" * 16_384 + b"\r\n"
                last = b"%x\r\n" % (size % 16_384) + b"x" * (size % 16_384) + b"\r\n" if size % 16_384 else b""
                framed = b"transfer-encoding: chunked\r\n\r\n" + pieces * (size // 16_384) + last
                await peer.send(b"HTTP/1.1 " + status + b"\r\n" + head + framed)
                await peer.send(b"0\r\n\r\n")
            else:
                framed = b"content-length: %d\r\n\r\n" % size + b"x" * size
                await peer.send(b"HTTP/1.1 " + status + b"\r\n" + head + framed)

    return behave


FOLLOWUPS = b"Content-Type: Application/vnd.sluice.tasks+JSON; charset=utf-8\r\n"
MIB = 1_048_576


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_follow_up_work_of_four_mebibytes_is_whole_and_keeps_its_connection(
    transport: Transport, chunked: bool
) -> None:
    async with serve(sized(b"200 OK", FOLLOWUPS, chunked=chunked)) as server:
        for _ in range(2):
            whole = await post(transport, server.url, [], b"%d" % MAX_FOLLOWUP_BYTES, tenant="t", timeout_seconds=10)
            assert (len(whole.body), whole.truncated) == (4 * MIB, False)
    assert server.connections == 1


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("size", [4 * MIB + 1, 5 * MIB])
async def test_follow_up_work_above_its_limit_is_cut_and_known_as_too_large(
    transport: Transport, chunked: bool, size: int
) -> None:
    async with serve(sized(b"201 Created", FOLLOWUPS, chunked=chunked)) as server:
        cut = await post(transport, server.url, [], b"%d" % size, tenant="t", timeout_seconds=10)
    assert len(cut.body) == MAX_FOLLOWUP_BYTES + 1
    assert is_followups(cut)


@pytest.mark.parametrize(
    ("status", "head"),
    [
        (b"200 OK", b"content-type: application/json\r\n"),
        (b"200 OK", b""),
        (b"500 Oops", FOLLOWUPS),
        (b"302 Found", FOLLOWUPS),
    ],
)
async def test_any_other_reply_of_five_mebibytes_is_cut_as_ever(
    transport: Transport, status: bytes, head: bytes
) -> None:
    async with serve(sized(status, head)) as server:
        cut = await post(transport, server.url, [], b"%d" % (5 * MIB), tenant="t", timeout_seconds=10)
    assert (len(cut.body), cut.truncated) == (65_536, True)


async def test_a_call_after_follow_up_work_on_the_same_connection_has_the_plain_cap_again(transport: Transport) -> None:
    async def both(peer: Peer) -> None:
        for head in (FOLLOWUPS, b""):
            await peer.read()
            await peer.send(b"HTTP/1.1 200 OK\r\n" + head + b"content-length: 200000\r\n\r\n" + b"x" * 200_000)
        await peer.gone()

    async with serve(both) as server:
        first = await post(transport, server.url, [], b"", tenant="t", timeout_seconds=10)
        second = await post(transport, server.url, [], b"", tenant="t", timeout_seconds=10)
    assert [len(first.body), len(second.body)] == [200_000, 65_536]
    assert server.connections == 1


async def test_idle_connections_are_bounded(loopback: EgressPolicy) -> None:
    transport = Transport(loopback, max_idle=2)
    together = asyncio.Barrier(5)

    async def behave(peer: Peer) -> None:
        while True:
            await peer.read()
            await together.wait()
            await peer.send(OK)

    async with serve(behave) as server:
        for _ in range(2):
            await asyncio.gather(
                *(post(transport, server.url, [], b"", tenant="t", timeout_seconds=5) for _ in range(5))
            )
        assert server.connections == 5 + 3
        await transport.aclose()
        await server.wait_until_empty()


async def test_a_connection_idle_for_too_long_is_not_used_again(loopback: EgressPolicy) -> None:
    transport = Transport(loopback, idle_seconds=0)
    async with serve(answer_ok) as server:
        for _ in range(3):
            await post(transport, server.url, [], b"", tenant="t", timeout_seconds=5)
        await transport.aclose()
    assert (server.connections, len(server.requests)) == (3, 3)


async def test_connections_to_hosts_no_longer_called_are_swept(loopback: EgressPolicy) -> None:
    transport = Transport(loopback, idle_seconds=0)
    async with serve(answer_ok) as once, serve(answer_ok) as other:
        await post(transport, once.url, [], b"", tenant="t", timeout_seconds=5)
        await post(transport, other.url, [], b"", tenant="t", timeout_seconds=5)
        await once.wait_until_empty()
        await transport.aclose()


async def test_an_idle_connection_closed_by_the_handler_is_noticed_by_the_loop(transport: Transport) -> None:
    async with serve(answer(OK, keep=False)) as server:
        for turn in range(3):
            assert (await post(transport, server.url, [], b"", tenant="t", timeout_seconds=5)).status == 200
            assert len(server.requests) == turn + 1
            await server.wait_until_empty()
    assert server.connections == 3


async def test_an_idle_connection_closed_while_the_loop_was_busy_is_noticed_before_sending(
    transport: Transport,
) -> None:
    """The end arrives in the kernel while nothing of the event loop runs between the two calls."""
    listening = socket.create_server(("127.0.0.1", 0))
    may_close, closed = threading.Event(), threading.Event()
    received: deque[bytes] = deque()

    def handle() -> None:
        with listening:
            for turn in range(2):
                peer, _ = listening.accept()
                received.append(peer.recv(65536))
                peer.sendall(OK)
                if turn == 0:
                    may_close.wait(5)
                peer.close()
                closed.set()

    thread = threading.Thread(target=handle, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    await post(transport, url, [], b"", tenant="t", timeout_seconds=5)
    may_close.set()
    assert closed.wait(5)
    assert (await post(transport, url, [], b"", tenant="t", timeout_seconds=5)).body == b"ok"
    thread.join(5)
    assert len(received) == 2


async def test_a_request_lost_on_a_kept_connection_is_not_sent_again(transport: Transport) -> None:
    async def once(peer: Peer) -> None:
        await peer.read()
        await peer.send(OK)
        await peer.read()

    async with serve(once) as server:
        await post(transport, server.url, [], b"first", tenant="t", timeout_seconds=5)
        with pytest.raises(DeliveryError, match="without an answer") as caught:
            await post(transport, server.url, [], b"second", tenant="t", timeout_seconds=5)
        assert caught.value.outcome == "unreachable"
        assert [request.body for request in server.requests] == [b"first", b"second"]
        assert server.connections == 1


async def test_a_second_reply_is_never_taken_for_the_answer_to_the_next_call(transport: Transport) -> None:
    async def poison(peer: Peer) -> None:
        body = (await peer.read()).body
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n%b" % body + OK)
        await peer.gone()

    async with serve(poison) as server:
        for sent in (b"one", b"two"):
            assert (await post(transport, server.url, [], sent, tenant="t", timeout_seconds=5)).body == sent
    assert server.connections == 2


async def test_bytes_on_an_idle_connection_end_it(transport: Transport) -> None:
    async def late(peer: Peer) -> None:
        body = (await peer.read()).body
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n" + body)
        await replied.wait()
        await peer.send(OK)
        await peer.gone()

    async with serve(late) as server:
        for sent in (b"one", b"two"):
            replied = asyncio.Event()
            assert (await post(transport, server.url, [], sent, tenant="t", timeout_seconds=5)).body == sent
            replied.set()
            await server.wait_until_empty()
    assert server.connections == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-a", "1\r\nx-b: 2"),
        ("x-a", "1\n"),
        ("x-a", "1\r"),
        ("x-a", "1\x00"),
        ("x-a\r\nx-b", "1"),
        ("x a", "1"),
        ("", "1"),
        ("x-a:", "1"),
        ("transfer-encoding ", "chunked"),
        ("Transfer-Encoding", "chunked"),
        ("content-length", "0"),
        ("host", "elsewhere"),
        ("x-a", "\u0100"),
    ],
)
async def test_a_header_that_would_break_the_request_is_refused_before_a_byte_is_sent(
    transport: Transport, name: str, value: str
) -> None:
    async with serve(answer_ok) as server:
        with pytest.raises(DeliveryError, match="header"):
            await post(transport, server.url, [(name, value)], b"", tenant="t", timeout_seconds=5)
    assert server.connections == 0


async def test_a_closed_client_refuses_calls_and_ends_those_in_flight(transport: Transport) -> None:
    async def silent(peer: Peer) -> None:
        await peer.read()
        asked.set()
        await peer.gone()

    asked = asyncio.Event()
    async with serve(silent) as server:
        call = asyncio.create_task(post(transport, server.url, [], b"", tenant="t", timeout_seconds=5))
        await asked.wait()
        await transport.aclose()
        with pytest.raises(DeliveryError, match="without an answer"):
            await call
        with pytest.raises(DeliveryError, match="closed"):
            await post(transport, server.url, [], b"", tenant="t", timeout_seconds=5)
        await server.wait_until_empty()
