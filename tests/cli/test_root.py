"""What may stand before the command."""

import pytest

from app.cli.root import moved
from tests.cli.conftest import Command


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("queues", "queues"),
        ("--json queues", "queues --json"),
        ("--url http://h --json tasks list", "tasks list --url http://h --json"),
        ("--key=k tasks show ID", "tasks show ID --key=k"),
        ("--json tasks enqueue q -- -1", "tasks enqueue q --json -- -1"),
        ("--version --json", "--version --json"),
        ("--json", "--json"),
        ("--url", "--url"),
        ("", ""),
    ],
)
def test_shared_options_before_the_command_are_read_behind_it(given: str, read: str) -> None:
    assert moved(given.split()) == read.split()


def test_json_before_the_command_is_json(command: Command) -> None:
    ended = command("--json", "--url", "http://127.0.0.1:9", "queues")
    assert ended.code == 3 and ended.problem["code"] == "unreachable"


def test_the_version_is_an_option_too(command: Command) -> None:
    assert command("--version").out == command("version").out
