"""`sluice plan --app` and `sluice apply --app`: what a program declares, asking a real service."""

import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from tests.cli.conftest import Command

pytestmark = pytest.mark.ci
Program = Callable[[str], str]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    """Write a module into the current directory; return what --app takes."""
    monkeypatch.chdir(tmp_path)
    known, path = set(sys.modules), list(sys.path)

    def write(body: str) -> str:
        name = f"shop_{secrets.token_hex(4)}"
        head = "from sluice_client import Sluice\nsluice = Sluice('http://127.0.0.1:1')\n"
        (tmp_path / f"{name}.py").write_text(head + body)
        return f"{name}:sluice"

    yield write
    sys.path[:] = path
    for name in set(sys.modules) - known:
        if name.startswith("shop_"):
            del sys.modules[name]


REPORTS = """
@sluice.task(queue="{q}", name="{q}", tries=3)
async def report(tenant: str) -> None: ...
sluice.queue("{q}", max_concurrency=4)
sluice.schedule("{q}", report.call("acme"), cron="0 6 1 * *", timezone="Europe/Berlin", on_complete=report.call("all"))
"""


@pytest.fixture
def name() -> str:
    return f"q-{secrets.token_hex(4)}"


def test_a_program_is_planned_applied_and_then_unchanged(
    ask: Command, service: httpx2.Client, program: Program, name: str
) -> None:
    app = program(REPORTS.format(q=name))
    planned = ask("plan", "--app", app, "--json")
    assert [(one["kind"], one["name"], one["action"]) for one in planned.json["changes"]] == [
        ("queue", name, "create"),
        ("schedule", name, "create"),
    ]
    assert ask("plan", "--app", app, "--check").code == 2
    assert ask("apply", "--app", app).code == 0
    assert ask("plan", "--app", app, "--check").out == "0 to create, 0 to change, 0 to delete, 2 unchanged.\n"
    shown = service.get(f"/schedules/{name}").json()
    assert (shown["type"], shown["payload"]) == (name, {"tenant": "acme"})
    assert shown["retry"]["max_attempts"] == 3
    assert shown["on_complete"] == {"queue": name, "type": name, "payload": {"tenant": "all"}}


def test_a_program_and_a_file_are_one_document_and_name_nothing_twice(
    ask: Command, program: Program, name: str, tmp_path: Path
) -> None:
    app = program(REPORTS.format(q=name))
    file = tmp_path / "definitions.yaml"
    file.write_text(f"queues: {{{name}-2: {{}}}}\n")
    found = ask("plan", str(file), "--app", app, "--json").json["changes"]
    assert [one["name"] for one in found] == [name, f"{name}-2", name]
    file.write_text(f"queues: {{{name}: {{}}}}\n")
    refused = ask("plan", str(file), "--app", app)
    assert (refused.code, refused.err) == (
        1,
        f"queues/{name} is defined in {file} and in {app}: keep one of them\n",
    )


def test_a_refusal_names_the_program_or_the_line_of_the_file(
    ask: Command, program: Program, name: str, tmp_path: Path
) -> None:
    app = program(f"sluice.queue('{name}', max_concurrency=0)\n")
    refused = ask("plan", "--app", app)
    assert refused.code == 1 and refused.err.startswith(f"{app}: /queues/{name}/max_concurrency: expected 1 to 100000")
    file = tmp_path / "definitions.yaml"
    file.write_text(f"queues:\n  {name}-2:\n    max_concurrency: 0\n")
    problem = ask("plan", str(file), "--app", app, "--json").problem
    places = {one["pointer"].split("/")[2]: (one["file"], one["line"]) for one in problem["errors"]}
    assert places == {name: (app, None), f"{name}-2": (str(file), 3)}


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("shop", "--app shop: write a module and a name in it, as in shop.tasks:sluice"),
        ("../shop.py:sluice", "--app ../shop.py:sluice: write a module and a name in it"),
        (".shop:sluice", "--app .shop:sluice: write a module and a name in it"),
        ("no_such_shop:sluice", "--app no_such_shop:sluice: there is no module no_such_shop in"),
        ("json:sluice", "--app json:sluice: json has no sluice"),
        ("json:dumps", "--app json:dumps: dumps is no Sluice, but function"),
    ],
)
def test_what_is_no_program_is_said_in_a_sentence(command: Command, program: Program, app: str, said: str) -> None:
    ended = command("plan", "--app", app)
    assert ended.code == 1 and ended.err.startswith(said)


def test_an_annotation_that_leads_nowhere_is_found_before_anything_is_applied(
    command: Command, program: Program
) -> None:
    app = program("@sluice.task(queue='q')\ndef f(order: 'Order') -> None: ...\nsluice.queue('q')\n")
    ended = command("apply", "--app", app)
    assert ended.code == 1 and "an annotation cannot be resolved: name 'Order' is not defined" in ended.err


def test_a_definition_that_is_no_json_is_named(command: Command, program: Program) -> None:
    app = program("from datetime import timedelta\nsluice.queue('slow', timeout_seconds=timedelta(minutes=5))\n")
    ended = command("apply", "--app", app)
    assert ended.code == 1 and ended.err == f"{app}: queues/slow: Object of type timedelta is not JSON serializable\n"


def test_neither_a_file_nor_a_program_is_an_error_of_use(command: Command) -> None:
    assert command("plan").code == 2
    assert command("plan", "--app", "a:b", "--overlay", "dev").code == 2
