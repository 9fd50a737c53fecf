"""Which address a call connects to, and which it never does."""

import asyncio
import socket
from collections import deque
from unittest.mock import patch

import pytest

from app.delivery.webhook.connection import Connection
from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.errors import DeliveryError
from app.delivery.webhook.transport import Transport
from app.delivery.webhook.urls import ParsedUrl

from .posting import post
from .servers import answer_ok, serve

pytestmark = pytest.mark.anyio


async def test_the_next_vetted_address_is_tried_when_one_refuses() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.77", "127.0.0.1"]

    transport = Transport(EgressPolicy(["127.0.0.0/8"], resolver=resolve))
    async with serve(answer_ok) as server:
        for _ in range(2):
            await post(transport, f"http://two.example:{server.port}/", [], b"", tenant="t", timeout_seconds=5)
        assert server.requests[0].header("host") == f"two.example:{server.port}"
        assert server.connections == 1
        await transport.aclose()


async def test_an_address_that_does_not_answer_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.77", "127.0.0.1"]

    async def connect(url: ParsedUrl, address: str, loop: asyncio.AbstractEventLoop) -> Connection:
        if address == "127.0.0.77":
            await asyncio.Event().wait()
        return await really_connect(url, address, loop)

    monkeypatch.setattr("app.delivery.webhook.transport.CONNECT_SHARE_SECONDS", 0.05)
    transport = Transport(EgressPolicy(["127.0.0.0/8"], resolver=resolve))
    really_connect = transport._connect
    async with serve(answer_ok) as server:
        with patch.object(transport, "_connect", connect):
            await post(transport, f"http://two.example:{server.port}/", [], b"", tenant="t", timeout_seconds=5)
        await transport.aclose()
    assert server.connections == 1


async def test_a_refused_connection_names_the_host_and_the_reason(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(DeliveryError, match="Connection refused") as caught:
        await post(transport, f"http://127.0.0.1:{port}/", [], b"", tenant="t", timeout_seconds=5)
    assert caught.value.outcome == "unreachable"


async def test_ipv6_is_called_with_brackets_in_its_host_header(transport: Transport) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 on this machine")
    async with serve(answer_ok, address="::1") as server:
        await post(transport, f"http://[::1]:{server.port}/", [], b"", tenant="t", timeout_seconds=5)
    assert server.requests[0].header("host") == f"[::1]:{server.port}"


async def test_a_name_that_resolves_elsewhere_a_moment_later_is_refused_and_not_connected_to() -> None:
    """DNS rebinding: the call goes to the address that was vetted, and the next verdict sees the change."""
    answers = deque([["93.184.216.34"], ["127.0.0.1"]])
    connected: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        return answers.popleft()

    async def connect(url: object, address: str, loop: object) -> None:
        connected.append(address)
        raise ConnectionRefusedError

    transport = Transport(EgressPolicy(resolver=resolve, kept_seconds=0))
    async with serve(answer_ok) as server:
        with patch.object(transport, "_connect", connect):
            for outcome in ("unreachable", "egress_denied"):
                with pytest.raises(DeliveryError) as caught:
                    await post(
                        transport, f"http://moving.example:{server.port}/", [], b"", tenant="t", timeout_seconds=5
                    )
                assert caught.value.outcome == outcome
    assert connected == ["93.184.216.34"]
    assert server.connections == 0


async def test_a_kept_connection_is_not_used_once_its_address_is_no_longer_vetted() -> None:
    answers = deque([["127.0.0.1"], ["127.0.0.2"], ["169.254.169.254"]])

    async def resolve(host: str, port: int) -> list[str]:
        return answers.popleft()

    transport = Transport(EgressPolicy(["127.0.0.0/8"], resolver=resolve, kept_seconds=0))
    async with serve(answer_ok) as server:
        url = f"http://moving.example:{server.port}/"
        await post(transport, url, [], b"", tenant="t", timeout_seconds=5)
        for outcome in ("unreachable", "egress_denied"):
            with pytest.raises(DeliveryError) as caught:
                await post(transport, url, [], b"", tenant="t", timeout_seconds=5)
            assert caught.value.outcome == outcome
        assert len(server.requests) == 1
        await transport.aclose()
