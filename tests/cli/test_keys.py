"""`sluice keys` and `sluice migrate` on a database, and what they say when there is none."""

import base64
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
import structlog

from app.cli.main import run
from app.domain.instants import parse_instant

pytestmark = pytest.mark.ci


@dataclass
class Ended:
    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Ended]
KEYS = (("keys", "list", "--json"), ("keys", "create", "--tenant", "acme"), ("keys", "revoke", "k"))


@pytest.fixture
def own_logs() -> Iterator[None]:
    """A command sets up the logs of its process."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, structlog.get_config())
    yield
    root.handlers[:], root.level = before[0], before[1]
    structlog.configure(**before[2])


@pytest.fixture
def sluice(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own_logs: None) -> Command:
    """The command in this process: only its imports would take time in one of its own."""

    def sluice(*arguments: str, database_url: str) -> Ended:
        monkeypatch.setenv("SLUICE_DATABASE_URL", database_url)
        monkeypatch.setattr("sys.argv", ["sluice", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run()
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return sluice


def test_a_key_stands_alone_on_stdout_and_its_secret_nowhere_else(sluice: Command, database_url: str) -> None:
    made = sluice("keys", "create", "--tenant", "acme", database_url=database_url)
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert key.startswith("slk_") and len(key.split()) == 1
    assert key not in made.stderr and "shown only once" in made.stderr
    listed = sluice("keys", "list", database_url=database_url)
    assert listed.stdout.splitlines()[0].split() == [
        "id",
        "kind",
        "tenant",
        "scope",
        "last",
        "used",
        "expires",
        "queues",
    ]
    assert key not in listed.stdout and "acme" in listed.stdout and "manage" in listed.stdout
    (found,) = json.loads(sluice("keys", "list", "--json", database_url=database_url).stdout)
    assert (found["tenant"], found["scope"], found["revoked_at"]) == ("acme", "manage", None)
    assert sluice("keys", "revoke", found["id"], database_url=database_url).returncode == 0
    again = sluice("keys", "revoke", found["id"], database_url=database_url)
    assert again.returncode == 1 and f"no active key {found['id']}" in again.stderr


def test_rewrap_moves_the_data_key_under_the_first_encryption_key(
    sluice: Command, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (base64.b64encode(letter * 32).decode() for letter in (b"a", b"b"))
    lost = sluice("keys", "rewrap", database_url=database_url)
    assert lost.returncode == 2 and "SLUICE_ENCRYPTION_KEY is not set" in lost.stderr
    monkeypatch.setenv("SLUICE_ENCRYPTION_KEY", f"{second}, {first}")
    none = sluice("keys", "rewrap", database_url=database_url)
    assert none.returncode == 2 and "start a replica on it once" in none.stderr


def test_keys_are_refused_in_a_sentence(sluice: Command, database_url: str) -> None:
    said = sluice("keys", "create", "--tenant", "Not A Name", database_url=database_url)
    assert said.returncode == 1 and said.stdout == ""
    assert "tenant is not a name" in said.stderr and "Traceback" not in said.stderr
    assert sluice("keys", "create", "--tenant", "a", "--scope", "all", database_url=database_url).returncode == 2
    assert "no keys yet" in sluice("keys", "list", database_url=database_url).stderr


def test_a_key_is_made_as_it_is_asked_for_rotated_and_listed(sluice: Command, database_url: str) -> None:
    asked = (
        "--queue",
        "mail",
        "--queue",
        "billing-*",
        "--no-payloads",
        "--expires",
        "90d",
        "--scope",
        "read",
        "--json",
    )
    made = json.loads(sluice("keys", "create", "--tenant", "acme", *asked, database_url=database_url).stdout)
    assert (made["queues"], made["payloads"], made["scope"]) == (["mail", "billing-*"], False, "read")
    expires = parse_instant(made["expires_at"])
    assert expires is not None and 89 <= (expires - datetime.now(UTC)).days <= 90
    rotated = sluice("keys", "rotate", made["id"], "--overlap", "60", database_url=database_url)
    token = rotated.stdout.strip()
    assert token.startswith(f"slk_{made['id']}_") and token != made["token"]
    listed = sluice("keys", "list", database_url=database_url).stdout
    assert "mail, billing-*" in listed and "no payloads" in listed and token not in listed
    assert sluice("keys", "rotate", "unknown", database_url=database_url).returncode == 1
    for wrong in (("--queue", "a b"), ("--expires", "2020-01-01T00:00:00Z")):
        refused = sluice("keys", "create", "--tenant", "acme", *wrong, database_url=database_url)
        assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert sluice("keys", "create", "--tenant", "a", "--expires", "soon", database_url=database_url).returncode == 2


def test_an_access_key_is_printed_as_variables_and_rotated(sluice: Command, database_url: str) -> None:
    made = sluice("keys", "create", "--tenant", "acme", "--kind", "aws", database_url=database_url)
    given = dict(line.split("=", 1) for line in made.stdout.splitlines())
    assert set(given) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} and "shown only once" in made.stderr
    rotated = sluice("keys", "rotate", given["AWS_ACCESS_KEY_ID"], "--json", database_url=database_url)
    again = json.loads(rotated.stdout)
    assert again["access_key_id"] == given["AWS_ACCESS_KEY_ID"]
    assert again["secret_access_key"] != given["AWS_SECRET_ACCESS_KEY"]


def test_a_database_that_is_away_is_told_in_a_sentence(sluice: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.main.DATABASE_WAIT_SECONDS", 0)
    for command in (("migrate",), *KEYS):
        ended = sluice(*command, database_url="postgresql://127.0.0.1:1/none")
        assert (ended.returncode, ended.stdout) == (3, ""), command
        assert "The database cannot be reached" in ended.stderr.splitlines()[-1]
        assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", KEYS, ids=" ".join)
def test_whoever_sits_before_a_command_is_not_made_to_wait_for_a_database(
    sluice: Command, command: tuple[str, ...]
) -> None:
    began = time.monotonic()
    ended = sluice(*command, database_url="postgresql://127.0.0.1:1/none")
    assert time.monotonic() - began < 10
    (line,) = ended.stderr.splitlines()
    assert line.startswith("The database cannot be reached")


@pytest.mark.parametrize("change", [("sluice@", "nobody@"), ("/sluice_test", "/no_such")], ids=["user", "database"])
def test_a_wrong_user_or_database_is_told_in_a_line(
    sluice: Command, database_url: str, change: tuple[str, str]
) -> None:
    """At once, though a start waits for a database that is away."""
    assert change[0] in database_url
    ended = sluice("migrate", database_url=database_url.replace(*change))
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("The database rejected the connection (") and line.endswith("in SLUICE_DATABASE_URL.")


def test_migrate_makes_the_schema_and_is_content_with_it(sluice: Command, empty_database_url: str) -> None:
    for _ in range(2):
        ended = sluice("migrate", database_url=empty_database_url)
        assert ended.returncode == 0, ended.stderr
    assert "no keys yet" in sluice("keys", "list", database_url=empty_database_url).stderr


def test_a_role_is_admitted_listed_and_revoked(sluice: Command, database_url: str) -> None:
    def told(*arguments: str) -> Ended:
        return sluice(*arguments, database_url=database_url)

    role = "pg_monitor"  # every server has it
    assert "No role may enqueue yet" in told("grants").stderr
    made = told("grant", role, "--tenant", "default", "--queue", "mail", "--queue", "billing-*")
    assert "may enqueue on queues mail, billing-* of tenant default" in made.stderr, made
    (one,) = json.loads(told("grants", "--json").stdout)
    assert (one["role"], one["tenant"], one["queues"], one["exists"]) == (role, "default", ["mail", "billing-*"], True)
    assert role in told("grants").stdout
    assert "may no longer enqueue" in told("revoke", role).stderr
    assert told("revoke", role).returncode == 1
    refused = told("grant", "no-such-role", "--tenant", "default")
    assert refused.returncode != 0 and "no role no-such-role" in refused.stderr
    odd = told("grant", role, "--tenant", "default", "--queue", "a?")
    assert odd.stderr == "queues/0 expected a queue's name, in which * stands for any characters\n"
