"""A reply whose head the parser has accepted before is read without it, and means the same."""

import asyncio

import pytest

from app.delivery.webhook.connection import MAX_KNOWN_HEADS, Connection
from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.errors import DeliveryError
from app.delivery.webhook.transport import Transport
from app.domain.answers import Answer

from .posting import post
from .servers import Peer, serve

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\nX-A: one\r\nContent-Length: 2\r\n\r\n"


class Server:
    """Answers each request with the next of its replies."""

    def __init__(self, *replies: bytes) -> None:
        self.replies = list(replies)

    async def __call__(self, peer: Peer) -> None:
        while self.replies:
            await peer.read()
            await peer.send(self.replies.pop(0))


class Parsed(list[bytes]):
    """What went through the parser."""

    changed: asyncio.Event


@pytest.fixture
async def parsed(monkeypatch: pytest.MonkeyPatch) -> Parsed:
    seen, parse = Parsed(), Connection._parse
    seen.changed = asyncio.Event()

    def noting(self: Connection, data: bytes) -> None:
        seen.append(data)
        seen.changed.set()
        parse(self, data)

    monkeypatch.setattr(Connection, "_parse", noting)
    return seen


async def bodies(transport: Transport, server: Server) -> list[Answer | str]:
    got: list[Answer | str] = []
    async with serve(server) as at:
        for _ in range(len(server.replies)):
            try:
                got.append(await post(transport, at.url, [], b"", tenant="t", timeout_seconds=5))
            except DeliveryError as error:
                got.append(error.outcome)
    return got


async def test_the_same_head_is_parsed_once_and_each_body_is_its_own(transport: Transport, parsed: Parsed) -> None:
    got = await bodies(transport, Server(HEAD + b"ok", HEAD + b"no", HEAD + b"ha"))
    headers = {"x-a": "one", "content-length": "2"}
    assert got == [Answer(200, headers, body) for body in (b"ok", b"no", b"ha")]
    assert parsed == [HEAD + b"ok"]


async def test_a_reply_in_pieces_is_parsed_though_its_head_is_known(transport: Transport, parsed: Parsed) -> None:
    async def behave(peer: Peer) -> None:
        await peer.read()
        await peer.send(HEAD + b"ok")
        await peer.read()
        parsed.changed.clear()
        await peer.send(HEAD + b"n")
        await parsed.changed.wait()
        await peer.send(b"o")

    async with serve(behave) as server:
        for body in (b"ok", b"no"):
            assert (await post(transport, server.url, [], b"", tenant="t", timeout_seconds=5)).body == body
    assert parsed == [HEAD + b"ok", HEAD + b"n", b"o"]


async def test_a_body_that_looks_like_a_known_reply_is_a_body(transport: Transport, parsed: Parsed) -> None:
    inner = HEAD + b"no"

    async def behave(peer: Peer) -> None:
        await peer.read()
        await peer.send(HEAD + b"ok")
        await peer.read()
        parsed.changed.clear()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(inner))
        await parsed.changed.wait()
        await peer.send(inner)

    async with serve(behave) as server:
        for body in (b"ok", inner):
            assert (await post(transport, server.url, [], b"", tenant="t", timeout_seconds=5)).body == body


async def test_the_end_of_a_head_that_came_in_pieces_is_not_kept_as_a_head(
    transport: Transport, parsed: Parsed
) -> None:
    async def behave(peer: Peer) -> None:
        await peer.read()
        parsed.changed.clear()
        await peer.send(HEAD[:-3])
        await parsed.changed.wait()
        await peer.send(HEAD[-3:] + b"ok")

    async with serve(behave) as server:
        assert (await post(transport, server.url, [], b"", tenant="t", timeout_seconds=5)).body == b"ok"
    assert not transport._heads.known


async def test_bytes_after_a_known_reply_spoil_the_connection(transport: Transport) -> None:
    async with serve(Server(HEAD + b"ok", HEAD + b"ok" + HEAD + b"xx", HEAD + b"ok")) as server:
        for _ in range(3):
            assert (await post(transport, server.url, [], b"", tenant="t", timeout_seconds=5)).body == b"ok"
    assert server.connections == 2


async def test_a_known_head_that_ends_the_connection_ends_it_each_time(transport: Transport) -> None:
    closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    async with serve(Server(closing, closing, closing)) as server:
        for _ in range(3):
            assert (await post(transport, server.url, [], b"", tenant="t", timeout_seconds=5)).body == b"ok"
    assert server.connections == 3


async def test_a_known_head_does_not_lift_the_limit_of_a_later_call(transport: Transport) -> None:
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123456789"
    async with serve(Server(reply, reply)) as server:
        whole = await post(transport, server.url, [], b"", tenant="t", timeout_seconds=5)
        cut = await post(transport, server.url, [], b"", tenant="t", timeout_seconds=5, max_reply_bytes=4)
    assert (whole.body, whole.truncated, cut.body, cut.truncated) == (b"123456789", False, b"1234", True)


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 2000 + b"\r\nContent-Length: 2\r\n\r\nok",
    ],
    ids=["chunked", "after an interim reply", "long"],
)
async def test_only_a_short_head_with_the_length_of_its_body_is_kept(transport: Transport, reply: bytes) -> None:
    got = await bodies(transport, Server(reply, reply))
    assert [answer.body for answer in got if isinstance(answer, Answer)] == [b"ok", b"ok"]
    assert not transport._heads.known


async def test_the_heads_that_are_kept_are_bounded() -> None:
    transport = Transport(EgressPolicy(["127.0.0.1/32"]))
    count = MAX_KNOWN_HEADS + 10
    replies = [b"HTTP/1.1 200 OK\r\nX-N: %d\r\nContent-Length: 2\r\n\r\nok" % n for n in range(count)]
    got = await bodies(transport, Server(*replies))
    assert [answer.headers["x-n"] for answer in got if isinstance(answer, Answer)] == [str(n) for n in range(count)]
    assert len(transport._heads.known) <= MAX_KNOWN_HEADS
    await transport.aclose()
