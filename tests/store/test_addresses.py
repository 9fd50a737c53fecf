"""Addresses as hosts hand them out: what is taken, what is dropped, what is refused."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from app.store.addresses import DROPPED, REFUSED, TAKEN, read_address


def parameters(url: str) -> dict[str, str]:
    (dsn,) = read_address(url).dsns
    return {name: values[0] for name, values in parse_qs(urlsplit(dsn).query).items()}


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u:p@ec2-1-2-3-4.compute-1.amazonaws.com:5432/d1",
        "postgresql://neondb_owner:p@ep-cool-1.eu-central-1.aws.neon.tech/neondb?sslmode=require&channel_binding=require",
        "postgresql://doadmin:p@db-1.ondigitalocean.com:25060/defaultdb?sslmode=require",
        "postgresql+asyncpg://u:p@db/sluice",
        "postgres+psycopg://u:p@db/sluice?gssencmode=disable&keepalives=1&keepalives_idle=30&keepalives_interval=10",
        "postgresql://u:p@a:5432,b:5433/sluice?target_session_attrs=read-write&keepalives_count=3&load_balance_hosts=disable",
        "postgresql://u@/sluice?host=/run/postgresql&port=5432",
        "postgresql://u@%2Frun%2Fpostgresql/sluice",
        "postgresql://u:p@[2001:db8::1]:5432/sluice?tcp_user_timeout=5000&sslsni=1&client_encoding=utf8",
    ],
)
def test_an_address_that_hosts_hand_out_is_read(url: str) -> None:
    address = read_address(url)
    assert address.application_name == "sluice"
    for dsn in address.dsns:
        assert dsn.startswith("postgresql://")
        assert parse_qs(urlsplit(dsn).query).keys() <= TAKEN - {
            "application_name",
            "connect_timeout",
            "fallback_application_name",
        }


def test_what_the_driver_does_not_know_never_reaches_the_server() -> None:
    """To asyncpg a name it does not know is a startup parameter, which a server or a pooler refuses."""
    query = "&".join(f"{name}=1" for name in DROPPED)
    assert parameters(f"postgresql://u@db/d?{query}&gssencmode=prefer&connect_timeout=9&application_name=x") == {}


def test_a_name_for_the_connections_is_taken() -> None:
    assert (
        read_address("postgresql://db/d?application_name=mine&fallback_application_name=x").application_name == "mine"
    )
    assert read_address("postgresql://db/d?fallback_application_name=x").application_name == "x"


@pytest.mark.parametrize(
    ("given", "seconds"), [("", None), ("0", None), ("-1", None), ("1", 2), ("10", 10), ("900", 60)]
)
def test_the_time_for_a_connection_is_taken(given: str, seconds: float | None) -> None:
    assert read_address(f"postgresql://db/d?connect_timeout={given}").connect_seconds == seconds


@pytest.mark.parametrize(
    ("url", "dsns"),
    [
        ("postgresql://db", ["postgresql://db"]),
        ("postgresql://u@db/", ["postgresql://u@db"]),
        (
            "postgresql://u:a,b@x:1,[::1]:2,z/d?sslmode=require",
            [f"postgresql://u:a,b@{h}/d?sslmode=require" for h in ("x:1", "[::1]:2", "z")],
        ),
        ("postgresql:///d?host=/run/a,b&port=1", [f"postgresql:///d?host={h}&port=1" for h in ("%2Frun%2Fa", "b")]),
        (
            "postgresql://u@/d?host=a,b&port=1,2",
            [f"postgresql://u@/d?host={h}&port={p}" for h, p in (("a", 1), ("b", 2))],
        ),
    ],
)
def test_each_host_is_an_address_of_its_own(url: str, dsns: list[str]) -> None:
    assert list(read_address(url).dsns) == dsns


def test_values_are_read_as_libpq_reads_them() -> None:
    given = parameters("postgresql://db/d?user=a%26b&password=1+1%2B1&options=-c%20geqo%3Doff")
    assert given == {"user": "a&b", "password": "1+1+1", "options": "-c geqo=off"}
    assert read_address("postgresql://u:p#1@db/d").dsns == ("postgresql://u:p%231@db/d",)


@pytest.mark.parametrize(
    ("word", "mode"), [("require", "require"), ("true", "require"), ("false", "disable"), ("prefer", "prefer")]
)
def test_what_other_drivers_call_ssl_is_understood(word: str, mode: str) -> None:
    assert parameters(f"postgresql+asyncpg://db/d?ssl={word}") == {"sslmode": mode}


def test_the_system_s_authorities_are_found() -> None:
    given = parameters("postgresql://db/d?sslrootcert=system")
    assert given["sslmode"] == "verify-full"
    assert Path(given["sslrootcert"]).is_file()


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("channel_bindin=require", "'channel_bindin' is not a libpq parameter: did you mean channel_binding?"),
        (
            "pgbouncer=true",
            "'pgbouncer' is not a libpq parameter: give the pooler's address here, and the server's own as ",
        ),
        ("schema=public", "'schema' is not a libpq parameter: all that is Sluice's is in the schema sluice"),
        ("prepared_statement_cache_size=0", "'prepared_statement_cache_size' is not a libpq parameter: remove it"),
        ("gssencmode=require", "gssencmode asks for encryption by GSSAPI"),
        ("sslmode=no-verify", "sslmode must be one of disable, "),
        ("sslrootcert=/nowhere.crt", "sslrootcert is not an existing file"),
        ("target_session_attrs=standby", "any, read-write or primary"),
        ("host=a,b&port=1,2,3", "port must be one number, or one for each host"),
        ("connect_timeout=soon", "connect_timeout must be a whole number of seconds"),
        *((f"{name}=1", f"{name} is a parameter of libpq that Sluice cannot honour") for name in sorted(REFUSED)),
    ],
)
def test_what_cannot_be_honoured_is_named(query: str, says: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        read_address(f"postgresql://u:hidden@{'' if 'host=' in query else 'db'}/d?{query}")
    assert says in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["mysql://x", "postgresql:/x", "host=db dbname=d", "jdbc:postgresql://db/d", "postgresql://db:port/d"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"must begin with|cannot be read"):
        read_address(url)
