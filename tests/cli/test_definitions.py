"""`sluice plan` and `sluice apply`, asking a real service."""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.delivery.webhook.signing import new_secret
from tests.cli.conftest import Command, Ended, Scripted
from tests.docs.pages import ROOT

pytestmark = pytest.mark.ci

EXAMPLE = str(ROOT / "examples" / "definitions.yaml")
SECRET = new_secret()
VARIABLES = {"HANDLERS_URL": "http://127.0.0.1:9", "WEBHOOK_SECRET": SECRET}


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], str]:
    """A file with this text; its path."""

    def write(text: str) -> str:
        path = tmp_path / "definitions.yaml"
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def name() -> str:
    return f"n-{secrets.token_hex(4)}"


def actions(ended: Ended) -> dict[str, int]:
    assert ended.code == 0, ended.err
    found = [change["action"] for change in ended.json["changes"]]
    return {action: found.count(action) for action in set(found)}


@pytest.mark.parametrize("overlay", ["dev", "staging", "prod", None])
def test_the_example_applied_twice_changes_nothing_the_second_time(ask: Command, overlay: str | None) -> None:
    chosen = [] if overlay is None else ["--overlay", overlay]
    first = ask("apply", EXAMPLE, *chosen, "--prune", "--json", **VARIABLES)
    assert first.code == 0, first.err
    again = ask("apply", EXAMPLE, *chosen, "--prune", "--json", **VARIABLES)
    assert actions(again) == {"unchanged": 10 if overlay == "dev" else 11}
    assert ask("plan", EXAMPLE, *chosen, "--prune", "--check", **VARIABLES).code == 0
    assert SECRET not in first.out + again.out


def test_the_example_holds_the_four_standard_queues_and_each_overlay_differs(
    ask: Command, service: httpx2.Client
) -> None:
    assert ask("apply", EXAMPLE, "-o", "prod", **VARIABLES).code == 0
    queues = {queue["name"]: queue for queue in service.get("/queues").json()["items"]}
    assert {"background-processing", "reports", "cleanup", "notifications"} <= set(queues)
    assert queues["background-processing"]["max_concurrency"] == 200
    assert service.get("/limits").json()["max_concurrency"] == 1000
    assert ask("plan", EXAMPLE, "-o", "dev", "--check", **VARIABLES).code == 2
    ended = ask("apply", EXAMPLE, "-o", "dev", **VARIABLES)
    assert "~ queue background-processing\n    max_concurrency: 200 → 2\n" in ended.out
    assert service.get("/schedules/monthly-reports").status_code == 200, "it is left out, and nothing is deleted"
    ended = ask("apply", EXAMPLE, "-o", "dev", "--prune", "--yes", **VARIABLES)
    assert "- schedule monthly-reports\n" in ended.out and ended.out.endswith("Applied.\n")
    assert service.get("/schedules/monthly-reports").status_code == 404


def test_a_prune_lists_what_it_would_delete_before_it_asks_and_asks_a_program_for_its_yes(
    ask: Command, written: Callable[[str], str], name: str, service: httpx2.Client
) -> None:
    made = ask("apply", written(f"owner: {name}\nqueues: {{{name}-1: {{}}, {name}-2: {{}}}}"))
    assert (made.code, f'    owner: "{name}"\n' in made.out) == (0, True)
    file = written(f"owner: {name}\nqueues: {{{name}-1: {{max_depth: 5}}}}")
    refused = ask("apply", file, "--prune")
    sentence = "1 definition would be deleted; to delete without confirmation, use --yes"
    assert (refused.code, refused.err) == (1, f"{sentence}:\n  queue {name}-2\n")
    problem = ask("apply", file, "--prune", "--json").problem
    assert (problem["code"], problem["errors"][0]["pointer"]) == ("unconfirmed", f"/queues/{name}-2")
    assert service.get(f"/queues/{name}-1").json()["max_depth"] is None, "nothing is changed without it"

    ended = ask("apply", file, "--prune", stdin=b"n\n", terminal=True)
    assert ended.code == 1 and f"To be deleted:\n  queue {name}-2\nDelete 1 definition? [y/N]" in ended.out
    assert service.get(f"/queues/{name}-2").status_code == 200
    ended = ask("apply", file, "--prune", stdin=b"y\n", terminal=True)
    assert ended.out.endswith("Applied.\n") and service.get(f"/queues/{name}-2").status_code == 404


def test_a_plan_tells_what_would_change_and_check_says_so_by_its_exit_code(
    ask: Command, written: Callable[[str], str], name: str, service: httpx2.Client
) -> None:
    file = written(f"handlers:\n  {name}:\n    url: http://127.0.0.1:9/\nqueues:\n  {name}: {{handler: {name}}}\n")
    planned = ask("plan", file)
    assert (planned.code, planned.err) == (0, "")
    assert planned.out.splitlines() == [
        f"+ handler {name}",
        '    url: "http://127.0.0.1:9/"',
        f"+ queue {name}",
        f'    handler: "{name}"',
        "2 to create, 0 to change, 0 to delete, 0 unchanged.",
    ]
    assert service.get(f"/queues/{name}").status_code == 404
    assert ask("plan", file, "--check").code == 2
    assert ask("plan", file, "--check", "--json").json["changes"][0]["name"] == name
    applied = ask("apply", file)
    assert applied.code == 0 and "rotate-secret" in applied.out and "whsec_" not in applied.out
    assert ask("plan", file, "--check").out == "0 to create, 0 to change, 0 to delete, 2 unchanged.\n"
    assert ask("apply", file).out.endswith("Nothing to change.\n")


def test_a_file_is_read_from_standard_input_too(ask: Command, name: str) -> None:
    ended = ask("plan", "-", "--json", stdin=f"queues: {{{name}: {{}}}}".encode())
    assert actions(ended) == {"create": 1}


def test_faults_that_the_service_finds_are_told_with_their_lines(
    ask: Command, written: Callable[[str], str], name: str
) -> None:
    file = written(
        f"queues:\n  {name}:\n    max_concurrency: none\n    colour: red\n"
        f'schedules:\n  {name}:\n    queue: {name}\n    payload: null\n    cron: "61 * * * *"\n'
    )
    ended = ask("plan", file)
    assert (ended.code, ended.out) == (1, "")
    lines = ended.err.splitlines()
    assert lines[0].startswith(f"{file}:3: /queues/{name}/max_concurrency: ")
    assert lines[1] == f"{file}:4: /queues/{name}/colour: unknown field"
    assert lines[2].startswith(f"{file}:9: /schedules/{name}/cron: ")
    assert len(lines) == 3
    problem = ask("plan", file, "--json").problem
    assert (problem["code"], problem["errors"][1]["line"], problem["errors"][1]["file"]) == ("invalid", 4, file)


def test_faults_in_the_file_are_told_before_anything_is_asked(command: Command, written: Callable[[str], str]) -> None:
    file = written("schedules:\n  a:\n    cron: */5 * * * *\n")
    ended = command("plan", file, SLUICE_URL="http://127.0.0.1:1")
    assert ended.code == 1
    assert ended.err == (f'{file}:3: to YAML, text that begins with * is an alias; quote it: "*/5 * * * *"\n')
    ended = command("plan", file, "--json")
    assert ended.problem["errors"][0]["line"] == 3
    assert command("plan", file + ".not").err == f"{file}.not cannot be read: No such file or directory\n"


def test_secrets_come_from_the_environment_and_are_never_shown(
    ask: Command, written: Callable[[str], str], name: str
) -> None:
    literal = written(f"handlers:\n  {name}:\n    url: http://127.0.0.1:9/\n    secret: {SECRET}\n")
    ended = ask("apply", literal)
    assert ended.code == 1 and SECRET not in ended.err
    assert f"{literal}:4: /handlers/{name}/secret: a file must not contain secrets" in ended.err
    file = written(
        f"handlers:\n  {name}:\n    url: http://127.0.0.1:9/\n    secret: ${{THE_SECRET}}\n"
        "    headers:\n      authorization: Bearer ${THE_TOKEN}\n"
    )
    missing = ask("apply", file)
    assert f"{file}:4: /handlers/{name}/secret: the environment variable THE_SECRET is empty or not set" in missing.err
    given = {"THE_SECRET": SECRET, "THE_TOKEN": "tok-4711"}
    shown = ask("apply", file, **given)
    assert shown.code == 0 and "    headers.authorization: ***\n    secret: ***\n" in shown.out
    changed = ask("apply", file, **given | {"THE_TOKEN": "tok-4712"})
    assert "~ handler" in changed.out and "    headers.authorization: *** → ***\n" in changed.out
    assert "tok-47" not in shown.out + changed.out and SECRET not in shown.out + changed.out
    assert ask("plan", file, "--check", **given | {"THE_TOKEN": "tok-4712"}).code == 0


def test_what_is_changed_between_plan_and_apply_is_refused(
    command: Command, scripted: Scripted, written: Callable[[str], str]
) -> None:
    change = {"kind": "queue", "name": "a", "action": "update", "changes": [{"field": "x", "from": 1, "to": 2}]}
    scripted.answer({"version": '"v1"', "changes": [change]})
    scripted.answer(
        {"code": "etag_mismatch", "detail": "not so any more", "errors": []}, 412, "application/problem+json"
    )
    ended = command("apply", written("queues: {a: {}}"), SLUICE_URL=scripted.url)
    assert ended.code == 1 and "etag_mismatch: not so any more\nNext: see what has changed" in ended.err
    assert [(path, body.get("version")) for _, path, body in scripted.asked] == [
        ("/definitions/plan", None),
        ("/definitions/apply", '"v1"'),
    ]


def test_what_stops_an_apply_half_way_is_told_with_its_line(
    command: Command, scripted: Scripted, written: Callable[[str], str]
) -> None:
    answers: list[Any] = [{"kind": "queue", "name": "a", "action": "delete", "changes": []}]
    scripted.answer({"version": '"v1"', "changes": answers})
    fault = {"pointer": "/queues/a", "detail": "queue a holds tasks"}
    body = {"code": "queue_in_use", "detail": "0 of 1 changes", "errors": [fault]}
    scripted.answer(body, 409, "application/problem+json")
    file = written("# none\nqueues: {}")
    ended = command("apply", file, "--prune", "--yes", SLUICE_URL=scripted.url)
    assert ended.err == f"queue_in_use: 0 of 1 changes\n{file}:2: /queues/a: queue a holds tasks\n"
    assert scripted.asked[0][2] == {"queues": {}, "prune": True}
