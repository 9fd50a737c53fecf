"""Handlers that stall, lie, flood and break off: each costs one bounded attempt, one request, and no connection."""

import asyncio
import gzip
import os
import socket
import time
from typing import cast

import pytest

from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.errors import DeliveryError
from app.delivery.webhook.transport import Transport

from .posting import post
from .servers import OK, PATIENCE_SECONDS, Behaviour, Peer, answer, answer_ok, serve

pytestmark = pytest.mark.anyio

SHORT_SECONDS = 0.15
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


async def failure(transport: Transport, url: str, seconds: float = 5.0, body: bytes = b"x") -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        await post(transport, url, [], body, tenant="t", timeout_seconds=seconds)
    return caught.value


def drips(data: bytes) -> Behaviour:
    async def behave(peer: Peer) -> None:
        await peer.read()
        await peer.drip(data)

    return behave


async def silent(peer: Peer) -> None:
    await peer.read()
    await peer.gone()


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(drips(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 10_000), id="drips its head"),
        pytest.param(drips(b"HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n" + b"y" * 10_000), id="drips its body"),
        pytest.param(drips(b"HTTP/1.1 200 OK\r\n\r\n" + b"y" * 10_000), id="drips without an end"),
        pytest.param(drips(CHUNKED + b"1\r\ny\r\n" * 5000), id="drips chunks"),
        pytest.param(drips(b"HTTP/1.1 100 Continue\r\n\r\n" * 500), id="drips interim replies"),
        pytest.param(silent, id="never answers"),
    ],
)
async def test_a_handler_that_never_ends_its_answer_is_cut_at_the_deadline(
    transport: Transport, behave: Behaviour
) -> None:
    async with serve(behave) as server:
        started = time.monotonic()
        error = await failure(transport, server.url, SHORT_SECONDS)
        assert error.outcome == "timeout"
        assert SHORT_SECONDS * 0.9 <= time.monotonic() - started < PATIENCE_SECONDS
        await server.wait_until_empty()
        assert len(server.requests) == 1


async def test_a_handshake_that_never_ends_is_cut_at_the_deadline(transport: Transport) -> None:
    async with serve(Peer.gone) as server:
        error = await failure(transport, server.url.replace("http:", "https:"), SHORT_SECONDS)
        assert error.outcome == "timeout"
        await server.wait_until_empty()


async def test_a_name_that_takes_for_ever_to_resolve_is_cut_at_the_deadline_and_holds_up_no_other() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        if host == "slow.example":
            await asyncio.Event().wait()
        return ["127.0.0.1"]

    transport = Transport(EgressPolicy(["127.0.0.1"], resolver=resolve))
    async with serve(answer_ok) as server:
        url = f"http://slow.example:{server.port}/"
        slow = asyncio.create_task(post(transport, url, [], b"", tenant="t", timeout_seconds=60))
        await post(transport, f"http://quick.example:{server.port}/", [], b"", tenant="t", timeout_seconds=5)
        assert not slow.done()
        assert (await failure(transport, url, SHORT_SECONDS)).outcome == "timeout"
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)
        await transport.aclose()


async def closes_at_once(peer: Peer) -> None:
    return


async def closes_after_the_request(peer: Peer) -> None:
    await peer.read()


async def resets_after_the_request(peer: Peer) -> None:
    await peer.read()
    peer.reset()


def breaks_off(reply: bytes, *, reset: bool) -> Behaviour:
    async def behave(peer: Peer) -> None:
        await peer.read()
        await peer.send(reply)
        if reset:
            peer.reset()

    return behave


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\ncontent-len",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        CHUNKED + b"5\r\nhello\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
async def test_an_answer_that_breaks_off_is_no_answer(transport: Transport, reply: bytes, reset: bool) -> None:
    async with serve(breaks_off(reply, reset=reset)) as server:
        error = await failure(transport, server.url)
        assert error.outcome == "unreachable"
        assert "was closed" in error.detail
        assert len(server.requests) == 1


async def test_a_body_that_ends_by_a_reset_is_not_taken_for_whole(transport: Transport) -> None:
    async def behave(peer: Peer) -> None:
        await peer.read()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await half_read.wait()
        peer.reset()

    half_read = asyncio.Event()
    async with serve(behave) as server:
        call = asyncio.create_task(failure(transport, server.url))
        asyncio.get_running_loop().call_later(0.02, half_read.set)
        assert (await call).outcome == "unreachable"


@pytest.mark.parametrize("behave", [closes_at_once, closes_after_the_request, resets_after_the_request])
async def test_a_handler_that_closes_without_a_word_is_unreachable_and_asked_once(
    transport: Transport, behave: Behaviour
) -> None:
    async with serve(behave) as server:
        error = await failure(transport, server.url)
        assert error.outcome == "unreachable"
        assert server.connections == 1
        assert len(server.requests) <= 1


def floods(head: bytes, piece: bytes) -> Behaviour:
    async def behave(peer: Peer) -> None:
        await peer.read()
        await peer.send(head)
        while True:
            await peer.send(piece)

    return behave


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(floods(b"HTTP/1.1 200 OK\r\n\r\n", b"y" * 65536), id="endless body"),
        pytest.param(floods(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n", b"y" * 65536), id="1 GiB"),
        pytest.param(floods(CHUNKED, b"1000\r\n" + b"y" * 4096 + b"\r\n"), id="endless chunks"),
    ],
)
async def test_a_body_larger_than_is_kept_is_a_full_answer_cut_there(transport: Transport, behave: Behaviour) -> None:
    async with serve(behave) as server:
        got = await post(transport, server.url, [], b"", tenant="t", timeout_seconds=5)
        assert (got.status, got.truncated) == (200, True)
        assert got.body == b"y" * 65536
        await server.wait_until_empty()


async def test_a_stalled_body_is_a_full_answer_once_all_that_is_kept_has_come(transport: Transport) -> None:
    async def behave(peer: Peer) -> None:
        await peer.read()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n" + b"y" * 65536)
        await peer.gone()

    async with serve(behave) as server:
        got = await post(transport, server.url, [], b"", tenant="t", timeout_seconds=5)
        assert (len(got.body), got.truncated) == (65536, True)


FOLLOWUPS = CHUNKED[:-2] + b"content-type: application/vnd.sluice.tasks+json\r\n\r\n"


async def test_follow_up_work_without_an_end_is_cut_at_its_own_cap(transport: Transport) -> None:
    async with serve(floods(FOLLOWUPS, b"1000\r\n" + b"y" * 4096 + b"\r\n")) as server:
        got = await post(transport, server.url, [], b"", tenant="t", timeout_seconds=10)
        assert (len(got.body), got.truncated) == (4_194_305, True)
        await server.wait_until_empty()


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(drips(FOLLOWUPS + b"1\r\ny\r\n" * 5000), id="drips"),
        pytest.param(answer(FOLLOWUPS + b"4000\r\n" + b"y" * 16_384 + b"\r\n"), id="stops"),
    ],
)
async def test_follow_up_work_that_does_not_end_by_the_deadline_is_no_answer(
    transport: Transport, behave: Behaviour
) -> None:
    async with serve(behave) as server:
        assert (await failure(transport, server.url, SHORT_SECONDS)).outcome == "timeout"
        await server.wait_until_empty()


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(answer(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000 + b"\r\n"), id="20,000 headers"),
        pytest.param(answer(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n"), id="100 kB in one header"),
        pytest.param(floods(b"HTTP/1.1 200 OK\r\nx: ", b"y" * 8192), id="a header without an end"),
        pytest.param(floods(b"HTTP/1.1 200 ", b"y" * 8192), id="a reason without an end"),
        pytest.param(floods(b"HTTP/1.1 200 OK\r\n", b"y: z\r\n" * 100), id="headers without an end"),
        pytest.param(floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), id="interim replies without an end"),
        pytest.param(floods(CHUNKED + b"1;", b"e" * 8192), id="a chunk extension without an end"),
        pytest.param(floods(CHUNKED, b"1;" + b"e" * 1000 + b"\r\ny\r\n"), id="mostly chunk extensions"),
        pytest.param(floods(CHUNKED + b"0\r\n", b"t: u\r\n" * 100), id="trailers without an end"),
        pytest.param(floods(FOLLOWUPS + b"1;", b"e" * 8192), id="a chunk extension without an end in follow-up work"),
    ],
)
async def test_a_flood_of_anything_but_body_is_too_large(transport: Transport, behave: Behaviour) -> None:
    async with serve(behave) as server:
        error = await failure(transport, server.url)
        assert error.outcome == "too_large"
        await server.wait_until_empty()
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"<html>no head at all</html>\r\n\r\n",
        b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 abc OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 099 Low\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\nbad header: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nokk",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999999\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        CHUNKED + b"zz\r\nhello\r\n",
        CHUNKED + b"-1\r\nhello\r\n",
        CHUNKED + b"3\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"fffffffffffffffff\r\nhello\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n\x00\x01",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
)
async def test_garbage_is_unreachable_and_says_why(transport: Transport, reply: bytes) -> None:
    async with serve(answer(reply)) as server:
        error = await failure(transport, server.url)
        assert error.outcome == "unreachable"
        assert error.detail.startswith("the answer ")
        await server.wait_until_empty()
        assert (server.connections, len(server.requests)) == (1, 1)


async def test_a_head_without_an_end_is_cut_at_its_own_cap(transport: Transport) -> None:
    async with serve(floods(b"HTTP/1.1 200 OK\r\nx: ", b"y" * 8192)) as server:
        assert "the head of the answer" in (await failure(transport, server.url)).detail


async def test_a_gzip_bomb_stays_as_it_came(transport: Transport) -> None:
    bomb = gzip.compress(b"\0" * 20_000_000)
    assert len(bomb) < 65536
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb)
    async with serve(answer(head + bomb)) as server:
        got = await post(transport, server.url, [], b"", tenant="t", timeout_seconds=5)
    assert got.body == bomb
    assert server.requests[0].header("accept-encoding") == "identity"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer_and_never_followed(transport: Transport, status: int) -> None:
    async with serve(answer_ok) as elsewhere:
        reply = b"HTTP/1.1 %d Away\r\nlocation: %b\r\ncontent-length: 0\r\n\r\n" % (status, elsewhere.url.encode())
        async with serve(answer(reply)) as server:
            got = await post(transport, server.url, [], b"", tenant="t", timeout_seconds=5)
        assert got.status == status
        assert got.headers["location"] == elsewhere.url
        assert elsewhere.connections == 0


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
async def test_a_proxy_in_the_environment_is_not_used(
    transport: Transport, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(answer_ok) as proxy, serve(answer_ok) as server:
        monkeypatch.setenv(variable, proxy.url)
        await post(transport, server.url, [], b"", tenant="t", timeout_seconds=5)
    assert (proxy.connections, server.connections) == (0, 1)


async def test_a_cookie_is_not_sent_back(transport: Transport) -> None:
    reply = b"HTTP/1.1 200 OK\r\nset-cookie: a=b\r\nset-cookie: c=d\r\ncontent-length: 0\r\n\r\n"
    async with serve(answer(reply)) as server:
        for _ in range(2):
            await post(transport, server.url, [], b"", tenant="t", timeout_seconds=5)
    assert server.requests[1].header("cookie") is None


@pytest.mark.parametrize("keep", [True, False])
async def test_an_answer_given_before_the_request_was_read_counts(transport: Transport, keep: bool) -> None:
    async def hasty(peer: Peer) -> None:
        await peer.read_head()
        cast(asyncio.Transport, peer.writer.transport).pause_reading()
        await peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        if keep:
            await may_end.wait()

    may_end = asyncio.Event()
    async with serve(hasty) as server:
        got = await post(transport, server.url, [], b"z" * 16_000_000, tenant="t", timeout_seconds=5)
        assert got.status == 413
        got = await post(transport, server.url, [], b"z", tenant="t", timeout_seconds=5)
        assert (got.status, server.connections) == (413, 2)
        may_end.set()


async def test_a_cancelled_call_closes_its_connection_and_leaves_nothing_open(transport: Transport) -> None:
    async def behave(peer: Peer) -> None:
        await peer.read()
        asked.release()
        await peer.gone()

    asked = asyncio.Semaphore(0)
    async with serve(behave) as server:
        before = len(os.listdir("/proc/self/fd"))
        calls = [
            asyncio.create_task(post(transport, server.url, [], b"", tenant="t", timeout_seconds=5)) for _ in range(20)
        ]
        for _ in calls:
            await asked.acquire()
        for call in calls:
            call.cancel()
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in done)
        await server.wait_until_empty()
        assert len(os.listdir("/proc/self/fd")) <= before
        assert not transport._busy


async def test_a_call_cancelled_while_connecting_leaves_nothing_open(transport: Transport) -> None:
    async def behave(peer: Peer) -> None:
        await peer.reader.read(1)
        asked.release()
        await peer.gone()

    asked = asyncio.Semaphore(0)
    async with serve(behave) as server:
        before = len(os.listdir("/proc/self/fd"))
        url = server.url.replace("http:", "https:")
        calls = [asyncio.create_task(post(transport, url, [], b"", tenant="t", timeout_seconds=5)) for _ in range(5)]
        for _ in calls:
            await asked.acquire()
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await server.wait_until_empty()
        assert len(os.listdir("/proc/self/fd")) <= before


async def test_a_call_cancelled_as_its_answer_arrives_neither_leaks_nor_complains(
    transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(answer_ok) as server:
        for turns in range(12):
            call = asyncio.create_task(post(transport, server.url, [], b"", tenant="t", timeout_seconds=5))
            for _ in range(turns):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        assert (await post(transport, server.url, [], b"", tenant="t", timeout_seconds=5)).body == b"ok"
        assert not transport._busy
        await transport.aclose()
        await server.wait_until_empty()
    assert not caplog.records


async def test_a_handler_that_accepts_nothing_costs_the_deadline(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        errors = await asyncio.gather(*(failure(transport, url, SHORT_SECONDS) for _ in range(8)))
    # the kernel may also refuse what its queue cannot hold
    outcomes = {error.outcome for error in errors}
    assert "timeout" in outcomes and outcomes <= {"timeout", "unreachable"}


async def test_a_slow_handler_holds_up_no_other(transport: Transport) -> None:
    async with serve(drips(b"HTTP/1.1 200 OK\r\n\r\n" + b"y" * 10_000)) as hell, serve(answer(OK)) as server:
        slow = [
            asyncio.create_task(post(transport, hell.url, [], b"", tenant="t", timeout_seconds=60)) for _ in range(50)
        ]
        for _ in range(50):
            await post(transport, server.url, [], b"", tenant="t", timeout_seconds=5)
        assert not any(call.done() for call in slow)
        for call in slow:
            call.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
