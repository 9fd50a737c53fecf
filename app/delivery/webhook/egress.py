"""Egress policy: the guard between tenants' URLs and the networks that this process can reach.

1. A literal address, in any spelling, is checked when it is saved and again at each call; a name is checked at each call.
2. Public addresses are allowed. Special ones (private, loopback, shared, reserved, multicast, …) are allowed only if the allow
list contains their network, or the host that resolved to them. Link-local and cloud metadata addresses are never allowed.
3. An IPv6 address that embeds an IPv4 address (mapped, compatible, NAT64, 6to4, Teredo) is checked by what it embeds.
4. One forbidden address refuses the whole name: a mixed answer is an attack or a mistake.
5. The transport connects only to the addresses of the verdict, so a name that resolves differently a moment later changes
nothing. Verdicts are cached for a few seconds, so that a busy name is not resolved for each call.
6. While a name is being resolved again, its last addresses stay in use for at most STALE_SECONDS if the answer is late or never
comes. They were checked like any others, and a different answer replaces them at once.
7. The log tells the operator why an address was refused; the tenant learns only that it is not allowed.
"""

import asyncio
import ipaddress
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from app.delivery.webhook.errors import DeliveryError
from app.delivery.webhook.lookups import LookupFailed, Lookups, Resolver
from app.delivery.webhook.urls import ParsedUrl, UrlError, check_host
from app.domain.fair_cache import FairCache
from app.telemetry import events
from app.telemetry.logs import get_logger

Address = IPv4Address | IPv6Address

KEPT_SECONDS = 2.0
STALE_SECONDS = 300.0
STALE_AFTER_SECONDS = 0.5
"""How long to wait for a fresh answer before using the last one, in the manner of RFC 8767."""
MAX_KEPT = 4_096
MAX_ADDRESSES = 64
"""How many addresses of one name are considered."""


log = get_logger(__name__)


def _networks(*texts: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


NEVER = _networks(
    "169.254.0.0/16",  # link-local, with the metadata of most clouds
    "168.63.129.16/32",  # Azure
    "100.100.100.200/32",  # Alibaba
    "192.0.0.192/32",  # Oracle
    "fe80::/10",  # link-local
    "fd00:ec2::/32",  # Amazon
    "fd20:ce::254/128",  # Google
    "fd00:42::42/128",  # Scaleway
)
NEVER_HOSTS = frozenset({"metadata.google.internal", "metadata.goog", "instance-data.ec2.internal", "instance-data"})

SPECIAL_V4 = _networks(
    "0.0.0.0/8",  # this host
    "10.0.0.0/8",
    "100.64.0.0/10",  # shared by carriers
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",  # protocol assignments
    "192.0.2.0/24",  # documentation
    "192.88.99.0/24",  # relays of 6to4
    "192.168.0.0/16",
    "198.18.0.0/15",  # benchmarks
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, broadcast
)
PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")
SPECIAL_V6 = _networks("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_TRANSLATED = ipaddress.IPv6Network("::ffff:0:0:0/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")
_6TO4 = ipaddress.IPv6Network("2002::/16")
_TEREDO = ipaddress.IPv6Network("2001::/32")


def faces(address: Address) -> list[Address]:
    """Return the addresses that a packet to this one may reach: those it embeds, or itself."""
    if isinstance(address, IPv4Address):
        return [address]
    bits = int(address)
    last = IPv4Address(bits & 0xFFFFFFFF)
    if address in _MAPPED or address in _NAT64 or (address in _COMPATIBLE and bits > 1):
        return [last]
    if address in _TRANSLATED:
        return [address, last]
    if address in _6TO4:
        return [IPv4Address(bits >> 80 & 0xFFFFFFFF)]
    if address in _TEREDO:
        return [IPv4Address(bits >> 64 & 0xFFFFFFFF), IPv4Address(~bits & 0xFFFFFFFF)]
    if address in _NAT64_LOCAL:
        # The translator may use any prefix length of RFC 6052 from 48 up; bits 64 to 71 are skipped then.
        squeezed = (bits >> 64 << 56) | (bits & (1 << 56) - 1)
        readings = (squeezed >> 40 & 0xFFFFFFFF, squeezed >> 32 & 0xFFFFFFFF, squeezed >> 24 & 0xFFFFFFFF)
        return [address, last, *(IPv4Address(reading) for reading in readings)]
    return [address]


def is_never(address: Address) -> bool:
    return any(face in network for face in faces(address) for network in NEVER)


def is_public(address: Address) -> bool:
    return all(_is_public_face(face) for face in faces(address))


def _is_public_face(face: Address) -> bool:
    if isinstance(face, IPv4Address):
        return not any(face in network for network in SPECIAL_V4)
    return face in PUBLIC_V6 and not any(face in network for network in SPECIAL_V6)


@dataclass(frozen=True, slots=True)
class _Verdict:
    at: float
    """When the answer came, in monotonic seconds."""
    addresses: tuple[str, ...] = ()
    denied: str | None = None
    unknown: str | None = None

    def read(self) -> tuple[str, ...]:
        if self.denied is not None:
            raise DeliveryError("egress_denied", self.denied)
        if self.unknown is not None:
            raise DeliveryError("unreachable", self.unknown)
        return self.addresses


class EgressPolicy:
    """The policy in one event loop. `allow` contains networks, addresses and host names; anything else raises ValueError."""

    def __init__(
        self,
        allow: Iterable[str] = (),
        *,
        resolver: Resolver | None = None,
        kept_seconds: float = KEPT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._networks: list[IPv4Network | IPv6Network] = []
        self._hosts: set[str] = set()
        for entry in allow:
            self._add(entry.strip())
        self._kept_seconds = kept_seconds
        self._clock = clock
        self._kept: FairCache[str, _Verdict] = FairCache(max_weight=MAX_KEPT)
        self._lookups = Lookups(resolver, clock=clock)
        self._refreshing: dict[tuple[str, str], asyncio.Task[_Verdict]] = {}

    def _add(self, entry: str) -> None:
        try:
            self._networks.append(ipaddress.ip_network(entry))
        except ValueError as error:
            if "/" in entry or ":" in entry or entry.replace(".", "").isdigit():
                raise ValueError(f"{entry!r} is not a network: {error}") from None
            try:
                self._hosts.add(check_host(entry))
            except UrlError:
                raise ValueError(f"{entry!r} is neither a network nor a host name") from None

    def refuse_literal(self, url: ParsedUrl) -> str | None:
        """Return why this URL is refused without a lookup; None if it is not."""
        if url.host in NEVER_HOSTS:
            return f"{url.host} is a cloud metadata address, which is never called"
        return None if url.address is None else self._refuse_address(url.address, by_name=False)

    def _refuse_address(self, address: Address, *, by_name: bool) -> str | None:
        if is_never(address):
            return f"{address} is a link-local or cloud metadata address, which is never called"
        if by_name or is_public(address) or self._allows(address):
            return None
        if all(_is_public_face(face) or self._allows(face) for face in faces(address)):
            return None
        return f"{address} is not a public address; add it to SLUICE_EGRESS_ALLOW if it may be called"

    def _allows(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def known(self, url: ParsedUrl, tenant: str) -> tuple[str, ...] | None:
        """Return the addresses of a fresh verdict without waiting; None if there is none. Raises the same as `vet`."""
        verdict = self._kept.get(tenant, url.host)
        return None if verdict is None or self._age(verdict) >= self._kept_seconds else verdict.read()

    def _age(self, verdict: _Verdict) -> float:
        return self._clock() - verdict.at

    async def vet(self, url: ParsedUrl, tenant: str) -> tuple[str, ...]:
        """Return the addresses to connect to, in order. Raises DeliveryError: egress_denied, unreachable (without any)."""
        known = self.known(url, tenant)
        if known is not None:
            return known
        refusal = self.refuse_literal(url)
        if refusal is not None or url.address is not None:
            return self._keep(url.host, tenant, (str(url.address),), denied=refusal).read()
        last = self._kept.get(tenant, url.host)
        if last is None or not last.addresses or self._age(last) > STALE_SECONDS:
            try:
                return (await self._look_up(url, tenant)).read()
            except LookupFailed as error:
                raise DeliveryError("unreachable", f"{url.host} does not resolve: {error}") from None
        return await self._refreshed(url, tenant, last)

    async def _refreshed(self, url: ParsedUrl, tenant: str, last: _Verdict) -> tuple[str, ...]:
        """Use a fresh verdict if it comes soon, otherwise the last one while the lookup continues."""
        refreshing = self._refreshing.get((tenant, url.host))
        if refreshing is None:
            refreshing = asyncio.create_task(self._look_up(url, tenant))
            self._refreshing[tenant, url.host] = refreshing
            refreshing.add_done_callback(lambda task: self._refresh_ended(task, tenant, url.host))
        await asyncio.wait((refreshing,), timeout=STALE_AFTER_SECONDS)
        if not refreshing.done() or refreshing.cancelled() or isinstance(refreshing.exception(), LookupFailed):
            return last.addresses
        return refreshing.result().read()

    def _refresh_ended(self, task: "asyncio.Task[_Verdict]", tenant: str, host: str) -> None:
        del self._refreshing[tenant, host]
        if not task.cancelled():
            task.exception()  # retrieved here, because everyone who asked may have moved on

    async def _look_up(self, url: ParsedUrl, tenant: str) -> _Verdict:
        """Raises LookupFailed."""
        host = url.host
        try:
            texts = await self._lookups.addresses(tenant, host, url.port)
            addresses = [ipaddress.ip_address(text) for text in texts[:MAX_ADDRESSES]]
        except LookupFailed:
            raise
        except (OSError, ValueError, RuntimeError) as error:
            return self._keep(host, tenant, unknown=f"{host} does not resolve: {error}")
        by_name = host in self._hosts
        for address in addresses:
            refusal = self._refuse_address(address, by_name=by_name)
            if refusal is not None:
                events.emit(log, events.EGRESS_DENIED, tenant=tenant, host=host, reason=refusal)
                return self._keep(host, tenant, denied=f"{host} resolves to an address that is not allowed")
        unknown = None if addresses else f"{host} has no address"
        return self._keep(host, tenant, tuple(str(address) for address in addresses), unknown=unknown)

    def _keep(
        self,
        host: str,
        tenant: str,
        addresses: tuple[str, ...] = (),
        *,
        denied: str | None = None,
        unknown: str | None = None,
    ) -> _Verdict:
        verdict = _Verdict(self._clock(), addresses, denied, unknown)
        self._kept.put(tenant, host, verdict)
        return verdict
