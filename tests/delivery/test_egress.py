"""Where calls may go, as a table."""

import asyncio
import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from app.delivery.webhook import egress
from app.delivery.webhook.egress import (
    MAX_KEPT,
    NEVER,
    SPECIAL_V4,
    STALE_SECONDS,
    EgressPolicy,
    faces,
    is_never,
    is_public,
)
from app.delivery.webhook.errors import DeliveryError
from app.delivery.webhook.urls import check_url

pytestmark = pytest.mark.anyio

PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "192.0.1.1", "2606:4700::1111", "2a00:1450:4001::1"]
SPECIAL = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "100::1",
    "fc00::1",
    "fd12:3456::1",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "2001:2::1",
    "2001:10::1",
    "3fff::1",
    "5f00::1",
    "4000::1",
    "64:ff9b:1::1",
]
NEVER_ADDRESSES = [
    "169.254.169.254",
    "169.254.0.1",
    "169.254.170.2",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.192",
    "fe80::1",
    "febf::1",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "fd00:42::42",
]


def wrappings(inner: str) -> list[IPv6Address]:
    """Every way an IPv4 address is carried inside an IPv6 one."""
    bits = int(IPv4Address(inner))
    public = int(IPv4Address("8.8.8.8"))
    return [
        IPv6Address(f"::ffff:{inner}"),
        IPv6Address(f"::ffff:0:{inner}"),
        IPv6Address(f"64:ff9b::{inner}"),
        IPv6Address((0x2002 << 112) | bits << 80 | 1),
        IPv6Address((0x20010000 << 96) | bits << 64 | (~public & 0xFFFFFFFF)),
        IPv6Address((0x20010000 << 96) | public << 64 | (~bits & 0xFFFFFFFF)),
        IPv6Address(f"64:ff9b:1::{inner}"),
        IPv6Address((0x64FF9B0001 << 80) | (bits >> 16) << 64 | (bits & 0xFFFF) << 40),
        IPv6Address((0x64FF9B0001 << 80) | (bits >> 24) << 64 | (bits & 0xFFFFFF) << 32),
        IPv6Address((0x64FF9B0001 << 80) | bits << 24),
    ]


def refusal(policy: EgressPolicy, address: str) -> str | None:
    return policy.refuse_literal(check_url(f"http://[{address}]/" if ":" in address else f"http://{address}/"))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert refusal(EgressPolicy(), address) is None


@pytest.mark.parametrize("address", SPECIAL)
def test_special_addresses_are_allowed_only_by_the_list(address: str) -> None:
    assert "SLUICE_EGRESS_ALLOW" in (refusal(EgressPolicy(), address) or "")
    assert refusal(EgressPolicy([address]), address) is None
    assert refusal(EgressPolicy(["0.0.0.0/0", "::/0"]), address) is None
    assert refusal(EgressPolicy(["10.99.0.0/16", "fd99::/16"]), address) is not None


@pytest.mark.parametrize("address", NEVER_ADDRESSES)
def test_link_local_and_metadata_are_never_allowed(address: str) -> None:
    policy = EgressPolicy([address, "0.0.0.0/0", "::/0"])
    assert "never" in (refusal(policy, address) or "")


@pytest.mark.parametrize("inner", [address for address in NEVER_ADDRESSES if ":" not in address])
def test_metadata_inside_any_ipv6_wrapping_is_never_allowed(inner: str) -> None:
    policy = EgressPolicy(["0.0.0.0/0", "::/0"])
    for address in [*wrappings(inner), IPv6Address(f"::{inner}")]:
        assert "never" in (refusal(policy, str(address)) or ""), address


@pytest.mark.parametrize("inner", [address for address in SPECIAL if ":" not in address and address != "0.0.0.0"])
def test_a_special_address_inside_any_ipv6_wrapping_is_refused(inner: str) -> None:
    for address in wrappings(inner):
        assert refusal(EgressPolicy(), str(address)) is not None, address


def test_a_wrapped_address_is_judged_by_what_it_carries() -> None:
    assert refusal(EgressPolicy(), "::ffff:8.8.8.8") is None
    assert refusal(EgressPolicy(), "64:ff9b::8.8.8.8") is None
    assert refusal(EgressPolicy(["10.0.0.0/8"]), "::ffff:10.0.0.1") is None
    assert refusal(EgressPolicy(["10.0.0.0/8"]), "64:ff9b::10.0.0.1") is None
    assert refusal(EgressPolicy(["10.0.0.0/8"]), "::ffff:192.168.0.1") is not None


@pytest.mark.parametrize(
    "url",
    [
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://0/",
        "http://127.0.0.1./",
        "http://１２７.0.0.1/",
        "http://[::ffff:7f00:1]/",
        "http://[0:0:0:0:0:0:0:1]/",
        "http://0xa9fea9fe/",
        "http://metadata.google.internal/computeMetadata/v1/",
        "http://METADATA.google.internal./",
    ],
)
def test_a_literal_in_any_spelling_is_refused_at_save(url: str) -> None:
    assert EgressPolicy().refuse_literal(check_url(url)) is not None


def test_an_ordinary_name_is_not_refused_at_save() -> None:
    assert EgressPolicy().refuse_literal(check_url("http://localhost/")) is None


v4_of_special = st.sampled_from(SPECIAL_V4).flatmap(lambda network: st.ip_addresses(network=network))


@given(v4_of_special)
def test_no_special_ipv4_address_passes_in_any_wrapping(inner: object) -> None:
    assert isinstance(inner, IPv4Address)
    assert not is_public(inner)
    for address in wrappings(str(inner)):
        assert not is_public(address), address


@given(st.sampled_from(NEVER).flatmap(lambda network: st.ip_addresses(network=network)))
def test_nothing_allows_a_never_address(address: IPv4Address | IPv6Address) -> None:
    assert refusal(EgressPolicy(["0.0.0.0/0", "::/0"]), str(address)) is not None


@given(st.ip_addresses(v=4))
def test_what_the_library_calls_private_is_never_public_to_us(address: IPv4Address) -> None:
    if is_public(address):
        assert address.is_global
        assert not (address.is_multicast or address.is_reserved or address.is_link_local)


@given(st.ip_addresses(v=6))
def test_what_is_public_in_ipv6_is_global_or_carries_what_is(address: IPv6Address) -> None:
    if is_public(address) and faces(address) == [address]:
        assert address in ipaddress.ip_network("2000::/3")
        assert address.is_global
    assert not (is_never(address) and is_public(address) and faces(address) == [address])


@pytest.mark.parametrize("entry", ["", "10.0.0.1/8", "10.0.0.0/33", "999.1.1.1", "::1::", "a b", "http://x/", "*"])
def test_an_allow_list_that_means_nothing_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="is n"):
        EgressPolicy([entry])


class Names:
    """A resolver with a fixed answer, that counts."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        await asyncio.sleep(0)
        return list(self.addresses)


def vet(policy: EgressPolicy, url: str) -> tuple[str, ...]:
    return asyncio.run(policy.vet(check_url(url), "t"))


def denied(policy: EgressPolicy, url: str) -> str:
    with pytest.raises(DeliveryError) as caught:
        vet(policy, url)
    assert caught.value.outcome == "egress_denied"
    return caught.value.detail


def test_a_name_is_vetted_by_every_address_it_has() -> None:
    assert vet(EgressPolicy(resolver=Names("8.8.8.8", "1.1.1.1")), "http://a.example/") == ("8.8.8.8", "1.1.1.1")
    denied(EgressPolicy(resolver=Names("8.8.8.8", "127.0.0.1")), "http://a.example/")
    denied(EgressPolicy(resolver=Names("fe80::1%2")), "http://a.example/")


def test_a_name_in_the_list_allows_its_addresses_but_never_metadata() -> None:
    allow = ["Hooks.internal."]
    assert vet(EgressPolicy(allow, resolver=Names("10.0.0.1")), "http://hooks.INTERNAL/") == ("10.0.0.1",)
    denied(EgressPolicy(allow, resolver=Names("10.0.0.1")), "http://other.internal/")
    denied(EgressPolicy(allow, resolver=Names("169.254.169.254")), "http://hooks.internal/")
    denied(EgressPolicy(allow, resolver=Names("::ffff:169.254.169.254")), "http://hooks.internal/")


def test_a_metadata_name_is_not_even_resolved() -> None:
    names = Names("8.8.8.8")
    denied(EgressPolicy(["metadata.google.internal"], resolver=names), "http://metadata.google.internal/")
    assert names.asked == []


@pytest.mark.parametrize("problem", [OSError("no such name"), UnicodeError("bad"), ValueError("worse")])
def test_a_name_that_does_not_resolve_is_unreachable(problem: Exception) -> None:
    async def fails(host: str, port: int) -> list[str]:
        raise problem

    for resolver in (fails, Names(), Names("no address")):
        with pytest.raises(DeliveryError) as caught:
            vet(EgressPolicy(resolver=resolver), "http://a.example/")
        assert caught.value.outcome == "unreachable"


def test_a_verdict_is_kept_for_a_while_and_one_flight_serves_all() -> None:
    now = 0.0
    names = Names("8.8.8.8")
    policy = EgressPolicy(resolver=names, kept_seconds=2, clock=lambda: now)

    async def ask() -> None:
        await asyncio.gather(*(policy.vet(check_url("http://a.example/"), "t") for _ in range(20)))

    asyncio.run(ask())
    assert policy.known(check_url("http://a.example:81/other"), "t") == ("8.8.8.8",)
    asyncio.run(ask())
    assert len(names.asked) == 1
    now = 2.0
    assert policy.known(check_url("http://a.example/"), "t") is None
    asyncio.run(ask())
    assert len(names.asked) == 2


def test_a_caller_that_gives_up_does_not_end_the_flight_of_others() -> None:
    async def story() -> tuple[str, ...]:
        answered = asyncio.Event()

        async def slow(host: str, port: int) -> list[str]:
            await answered.wait()
            return ["8.8.8.8"]

        policy = EgressPolicy(resolver=slow)
        first = asyncio.create_task(policy.vet(check_url("http://a.example/"), "t"))
        second = asyncio.create_task(policy.vet(check_url("http://a.example/"), "t"))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        answered.set()
        return await second

    assert asyncio.run(story()) == ("8.8.8.8",)


def test_kept_verdicts_are_bounded() -> None:
    policy = EgressPolicy()

    async def ask() -> None:
        for number in range(MAX_KEPT + 100):
            await policy.vet(check_url(f"http://8.8.{number // 256}.{number % 256}/"), "t")

    asyncio.run(ask())
    assert len(policy._kept) == MAX_KEPT


NAME = check_url("http://a.example/")


class Moving:
    """A resolver whose answer can be changed, or kept back."""

    def __init__(self) -> None:
        self.answer: list[str] | Exception = ["8.8.8.8"]
        self.answers = asyncio.Event()
        self.answers.set()

    async def __call__(self, host: str, port: int) -> list[str]:
        await self.answers.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def now() -> list[float]:
    """The time by a policy's clock, to be moved."""
    return [0.0]


async def test_the_last_addresses_stay_in_use_while_a_look_up_does_not_end(
    now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress, "STALE_AFTER_SECONDS", 0.01)
    names = Moving()
    policy = EgressPolicy(resolver=names, clock=lambda: now[0])
    assert await policy.vet(NAME, "t") == ("8.8.8.8",)
    names.answers.clear()
    now[0] = 10
    assert await policy.vet(NAME, "t") == ("8.8.8.8",)
    now[0] = STALE_SECONDS
    assert await policy.vet(NAME, "t") == ("8.8.8.8",)
    names.answer = ["1.1.1.1"]
    names.answers.set()
    await asyncio.wait(list(policy._refreshing.values()))
    assert policy.known(NAME, "t") == ("1.1.1.1",)


async def test_the_last_addresses_are_used_no_longer_than_that(now: list[float]) -> None:
    names = Moving()
    policy = EgressPolicy(resolver=names, clock=lambda: now[0])
    await policy.vet(NAME, "t")
    now[0] = STALE_SECONDS + 1
    names.answer = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    with pytest.raises(DeliveryError, match="Temporary failure") as caught:
        await policy.vet(NAME, "t")
    assert caught.value.outcome == "unreachable"


async def test_the_last_addresses_survive_a_failure_for_the_moment_and_nothing_else(now: list[float]) -> None:
    names = Moving()
    policy = EgressPolicy(resolver=names, clock=lambda: now[0])
    await policy.vet(NAME, "t")
    now[0] += 3
    names.answer = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    assert await policy.vet(NAME, "t") == ("8.8.8.8",)
    now[0] += 3
    names.answer = ["8.8.8.8", "10.0.0.1"]
    with pytest.raises(DeliveryError) as caught:
        await policy.vet(NAME, "t")
    assert caught.value.outcome == "egress_denied"
    names.answer = ["8.8.8.8"]
    now[0] += 3
    assert await policy.vet(NAME, "t") == ("8.8.8.8",)
    now[0] += 3
    names.answer = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    with pytest.raises(DeliveryError, match="not known"):
        await policy.vet(NAME, "t")


def test_an_internal_address_is_told_to_the_operator_and_not_to_the_tenant() -> None:
    with capture_logs() as lines:
        detail = denied(EgressPolicy(resolver=Names("8.8.8.8", "10.20.30.40")), "http://a.example/")
    assert detail == "a.example resolves to an address that is not allowed"
    [line] = [line for line in lines if line["event"] == "egress_denied"]
    assert (line["tenant"], line["host"]) == ("t", "a.example") and "10.20.30.40" in line["reason"]


async def test_verdicts_of_one_tenant_drive_out_none_of_another() -> None:
    policy = EgressPolicy(resolver=Names("8.8.8.8"))
    await policy.vet(NAME, "b")
    for number in range(MAX_KEPT + 100):
        await policy.vet(check_url(f"http://8.8.{number // 256}.{number % 256}/"), "a")
    assert policy.known(NAME, "b") == ("8.8.8.8",)
