"""TLS: connected to the pinned address, verified against the name in the URL."""

import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.errors import DeliveryError
from app.delivery.webhook.transport import Transport

from .posting import post
from .servers import OK, Peer, answer_ok, serve

pytestmark = pytest.mark.anyio

NAME = "handlers.example"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def trusting(authority: trustme.CA) -> AsyncIterator[Transport]:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    context = ssl.create_default_context()
    authority.configure_trust(context)
    transport = Transport(EgressPolicy(["127.0.0.0/8"], resolver=resolve), ssl_context=context)
    yield transport
    await transport.aclose()


def server_side(leaf: trustme.LeafCert, names: list[str | None] | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    if names is not None:
        context.sni_callback = lambda connection, name, _: names.append(name)
    return context


async def test_the_name_of_the_url_is_asked_for_and_verified_and_the_connection_kept(
    trusting: Transport, authority: trustme.CA
) -> None:
    names: list[str | None] = []
    async with serve(answer_ok, tls=server_side(authority.issue_cert(NAME), names)) as server:
        for _ in range(3):
            got = await post(
                trusting, f"https://{NAME}:{server.port}/", [], b"x" * 200_000, tenant="t", timeout_seconds=5
            )
            assert got.body == b"ok"
        assert (server.connections, len(server.requests)) == (1, 3)
    assert names == [NAME]
    assert server.requests[0].header("host") == f"{NAME}:{server.port}"


async def test_a_literal_address_is_verified_as_an_address(trusting: Transport, authority: trustme.CA) -> None:
    async with serve(answer_ok, tls=server_side(authority.issue_cert("127.0.0.1"))) as server:
        assert (await post(trusting, server.url, [], b"", tenant="t", timeout_seconds=5)).status == 200


@pytest.mark.parametrize("flaw", ["another name", "expired", "not yet valid", "another authority"])
async def test_a_bad_certificate_is_refused_before_the_request_is_sent(
    trusting: Transport, authority: trustme.CA, flaw: str
) -> None:
    now = datetime.now(UTC)
    leaf = {
        "another name": lambda: authority.issue_cert("elsewhere.example"),
        "expired": lambda: authority.issue_cert(NAME, not_before=now - timedelta(days=9), not_after=now - timedelta(1)),
        "not yet valid": lambda: authority.issue_cert(NAME, not_before=now + timedelta(days=1)),
        "another authority": lambda: trustme.CA().issue_cert(NAME),
    }[flaw]()
    async with serve(answer_ok, tls=server_side(leaf)) as server:
        with pytest.raises(DeliveryError, match="the certificate was rejected") as caught:
            await post(trusting, f"https://{NAME}:{server.port}/", [], b"secret", tenant="t", timeout_seconds=5)
        assert caught.value.outcome == "unreachable"
        assert server.requests == []


async def test_without_a_context_of_its_own_the_client_trusts_the_system_only(
    loopback: EgressPolicy, authority: trustme.CA
) -> None:
    transport = Transport(loopback)
    async with serve(answer_ok, tls=server_side(authority.issue_cert("127.0.0.1"))) as server:
        with pytest.raises(DeliveryError, match="the certificate was rejected"):
            await post(transport, server.url, [], b"", tenant="t", timeout_seconds=5)
        assert server.requests == []


async def test_plain_text_where_tls_was_expected_is_unreachable(trusting: Transport) -> None:
    async def behave(peer: Peer) -> None:
        await peer.send(OK)
        await peer.gone()

    async with serve(behave) as server:
        with pytest.raises(DeliveryError, match="TLS failed") as caught:
            await post(trusting, f"https://{NAME}:{server.port}/", [], b"", tenant="t", timeout_seconds=5)
        assert caught.value.outcome == "unreachable"
