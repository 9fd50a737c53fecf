"""Database addresses: libpq URLs, with or without the name of a Python driver.

Each libpq parameter is used, ignored because Sluice decides it itself or it makes no difference, or refused because it could not
be honoured. A name that libpq does not know is refused too: it is a typing error, or meant for another library.
"""

import difflib
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

APPLICATION_NAME = "sluice"
MAX_CONNECT_SECONDS = 60.0

_SCHEME = re.compile(r"postgres(?:ql)?(?:\+\w+)?://")
_HOST = re.compile(r"(\[[^\]@]*\]|[^:\[\]@]*)(?::(\d{1,5}))?")

TAKEN = {
    "application_name", "connect_timeout", "dbname", "fallback_application_name", "gsslib", "host", "krbsrvname", "options",
    "passfile", "password", "port", "service", "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcert", "sslcrl",
    "sslkey", "sslmode", "sslnegotiation", "sslpassword", "sslrootcert", "target_session_attrs", "user",
}  # fmt: skip
DROPPED = {
    "channel_binding": "the driver has none; sslmode=verify-full keeps strangers out of the connection",
    "client_encoding": "always UTF8",
    "gssdelegation": "nothing is delegated",
    "keepalives": "Sluice sets its own",
    "keepalives_count": "Sluice sets its own",
    "keepalives_idle": "Sluice sets its own",
    "keepalives_interval": "Sluice sets its own",
    "load_balance_hosts": "hosts are tried in their order",
    "max_protocol_version": "the driver speaks 3.0",
    "min_protocol_version": "the driver speaks 3.0",
    "sslcertmode": "a certificate is sent when one is given and asked for",
    "sslcompression": "no server compresses any more",
    "sslkeylogfile": "keys are not logged",
    "sslsni": "the name is always sent",
    "tcp_user_timeout": "Sluice sets its own",
}
"""Ignored parameters, each with the reason."""
REFUSED = {
    "hostaddr", "oauth_client_id", "oauth_client_secret", "oauth_issuer", "oauth_scope", "replication", "require_auth",
    "requirepeer", "requiressl", "scram_client_key", "scram_server_key", "servicefile", "sslcrldir",
}  # fmt: skip
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
SSL_WORDS = {"true": "require", "1": "require", "on": "require", "false": "disable", "0": "disable", "off": "disable"}
"""Values of `ssl` in other drivers."""
HINTS = {
    "pgbouncer": "give the pooler's address here, and the server's own as SLUICE_DATABASE_DIRECT_URL",
    "schema": "all that is Sluice's is in the schema sluice",
}


@dataclass(frozen=True, slots=True)
class Address:
    dsns: tuple[str, ...]
    """One per host, in order, for asyncpg, which would give all of them a single timeout."""
    application_name: str
    connect_seconds: float | None
    """How long to wait for each host, if the address says so."""


def read_address(url: str) -> Address:
    """Parse the URL. Raises ValueError, whose message never contains a password."""
    scheme = _SCHEME.match(url)
    if scheme is None:
        raise ValueError("it must begin with postgres:// or postgresql://")
    place, _, query = url[scheme.end() :].partition("?")
    authority, _, database = place.partition("/")
    user, at, hosts = authority.partition("@") if "@" in authority else ("", "", authority)
    named = _hosts(hosts, database)
    given = dict(_parameters(query))
    gssencmode = given.pop("gssencmode", "disable")
    if gssencmode not in ("disable", "prefer"):
        raise ValueError("gssencmode asks for encryption by GSSAPI, which the driver does not have: use sslmode")
    seconds = _connect_seconds(given.pop("connect_timeout", ""))
    fallback = given.pop("fallback_application_name", "") or APPLICATION_NAME
    name = given.pop("application_name", "") or fallback
    kept = {key: value for key, value in _settle_tls(given).items() if key not in DROPPED}
    if kept.get("target_session_attrs", "any") not in ("any", "read-write", "primary"):
        raise ValueError("target_session_attrs must be any, read-write or primary: Sluice writes")
    path = f"/{database}" if database else ""
    dsns = [
        # libpq has no fragments, so a # is an ordinary character
        f"postgresql://{user}{at}{host}{path}?{_query(kept | place)}".rstrip("?").replace("#", "%23")
        for host, place in _places(named, kept)
    ]
    return Address(tuple(dsns), name, seconds)


def _places(hosts: list[tuple[str, str]], given: dict[str, str]) -> list[tuple[str, dict[str, str]]]:
    """Return the hosts, from after the `?` if given there, otherwise from before it."""
    after = given.pop("host", None)
    names = [host for host, _ in hosts] if after is None else after.split(",")
    ports = given.pop("port").split(",") if "port" in given else [port for _, port in hosts]
    if len(ports) == 1:
        ports *= len(names)
    if len(ports) != len(names) or not all(re.fullmatch(r"\d{0,5}", port) for port in ports):
        raise ValueError("port must be one number, or one for each host")
    places = list(zip(names, ports, strict=True))
    if after is None:
        return [(f"{host}:{port}" if port else host, {}) for host, port in places]
    return [("", {"host": host, **({"port": port} if port else {})}) for host, port in places]


def _query(given: dict[str, str]) -> str:
    return "&".join(f"{key}={quote(value, safe='')}" for key, value in given.items())


def _hosts(hosts: str, database: str) -> list[tuple[str, str]]:
    """Return each host with its port, or ''."""
    found = [_HOST.fullmatch(host) for host in hosts.split(",")]
    read = [(host[1], host[2] or "") for host in found if host is not None and int(host[2] or 0) <= 65_535]
    if len(read) < len(found) or "@" in database:
        raise ValueError(
            "its host or port cannot be read; in a user name or password, write : / ? # @ % as %3A %2F %3F %23 %40 %25"
        )
    return read


def _parameters(query: str) -> Iterator[tuple[str, str]]:
    known = TAKEN | DROPPED.keys() | REFUSED | {"gssencmode"}
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        name, value = unquote(name), unquote(value)
        if name == "ssl":
            name, value = "sslmode", SSL_WORDS.get(value.lower(), value)
        if name == "database":
            name = "dbname"
        if name in REFUSED:
            raise ValueError(f"{name} is a parameter of libpq that Sluice cannot honour; remove it")
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = HINTS.get(name) or (f"did you mean {close[0]}?" if close else "remove it")
            raise ValueError(f"{name!r} is not a libpq parameter: {hint}")
        yield name, value


def _settle_tls(given: dict[str, str]) -> dict[str, str]:
    if given.get("sslmode", "prefer") not in SSL_MODES:
        raise ValueError(f"sslmode must be one of {', '.join(SSL_MODES)}")
    if given.get("sslrootcert") == "system":  # like libpq: the system's CAs, and the host name is verified
        given["sslmode"], given["sslrootcert"] = "verify-full", ssl.get_default_verify_paths().cafile or ""
    for name in ("sslrootcert", "sslcert", "sslkey", "sslcrl"):
        if name in given and not Path(given[name]).is_file():
            raise ValueError(f"{name} is not an existing file")
    return given


def _connect_seconds(value: str) -> float | None:
    if not value:
        return None
    if not re.fullmatch(r"-?\d{1,9}", value):
        raise ValueError("connect_timeout must be a whole number of seconds")
    seconds = int(value)
    # like libpq: zero or less means no limit, and one second counts as two
    return None if seconds <= 0 else min(max(2.0, seconds), MAX_CONNECT_SECONDS)
