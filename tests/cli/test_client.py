"""The commands that ask a running Sluice: what they print, for people and for programs, and how they end."""

import json
import os
import signal
import socket
import subprocess
import sys
from uuid import uuid4

import httpx2
import pytest

from tests.cli.conftest import Command, Ended, Scripted
from tests.sluices import ROOT
from tests.wire.api import fresh

pytestmark = pytest.mark.ci

MISSING = "01890000-0000-7000-8000-000000000000"
GONE = "http://127.0.0.1:9/hook"
"""Nothing listens there: an attempt fails at once."""


@pytest.fixture
def queue(service: httpx2.Client) -> str:
    """A queue for pull workers: its tasks stay where they are."""
    name = fresh("q")
    assert service.put(f"/queues/{name}", json={}).status_code == 201
    return name


@pytest.fixture
def deadly(service: httpx2.Client) -> str:
    """A queue whose tasks die at once."""
    name = fresh("deadly")
    assert service.put(f"/handlers/{name}", json={"url": GONE}).status_code == 201
    assert service.put(f"/queues/{name}", json={"handler": name, "retry": {"max_attempts": 1}}).status_code == 201
    return name


def test_a_task_is_enqueued_shown_cancelled_and_retried(ask: Command, queue: str) -> None:
    made = ask("tasks", "enqueue", queue, '{"to": "ada"}')
    task_id, *words = made.out.split()
    assert (made.code, " ".join(words)) == (0, f"is ready in queue {queue}")
    shown = ask("tasks", "show", task_id)
    fields = dict(line.split(None, 1) for line in shown.out.splitlines() if len(line.split(None, 1)) == 2)
    assert fields["state"].strip() == "ready" and fields["waiting_for"].strip() == "worker"
    assert fields["payload"].strip() == '{"to": "ada"}'
    assert ask("tasks", "cancel", task_id).out == f"{task_id} is cancelled\n"
    assert ask("tasks", "retry", task_id).out == f"{task_id} is ready\n"


def test_every_option_of_an_enqueue_reaches_the_task(ask: Command, queue: str) -> None:
    options = ("--type", "mail", "--delay", "60", "--ttl", "3600", "--priority", "-5", "--idempotency-key", "k")
    more = ("--correlation-id", "c", "--tag", "a", "--tag", "b", "--header", "X-Note: yes", "--timeout", "7")
    made = ask("tasks", "enqueue", queue, "1", *options, *more, "--max-attempts", "3", "--json")
    assert made.code == 0, made.err
    task = made.json
    wanted = {
        "type": "mail",
        "priority": -5,
        "idempotency_key": "k",
        "correlation_id": "c",
        "tags": ["a", "b"],
        "timeout_seconds": 7,
        "max_attempts": 3,
        "state": "scheduled",
    }
    assert {name: task[name] for name in wanted} == wanted
    assert {name.lower(): value for name, value in task["headers"].items()} == {"x-note": "yes"}
    assert task["expires_at"] > task["run_at"] > task["created_at"]
    assert ask("tasks", "enqueue", queue, "2", "--idempotency-key", "k").code == 1


def test_a_payload_comes_from_stdin_byte_for_byte(ask: Command, service: httpx2.Client, queue: str) -> None:
    payload = '{ "n": 1.10, "text": "ünï" }'
    made = ask("tasks", "enqueue", queue, "--json", stdin=payload.encode() + b"\n")
    assert payload in service.get(f"/tasks/{made.json['id']}").text


def test_what_is_wrong_with_the_command_line_is_said_before_anything_is_asked(command: Command) -> None:
    wrong = (
        ("tasks", "enqueue", "q", "hello"),
        ("tasks", "enqueue", "q", "1", "--header", "no-colon"),
        ("tasks", "enqueue", "../q", "1"),
        ("tasks", "show", "no-id"),
        ("tasks", "cancel", "../../queues"),
        ("tasks", "list", "--state", "lost"),
        ("pause", "No Name"),
        ("status", "--url", "localhost:8080"),
        ("redrive", "q", "--limit", "0"),
        ("nonsense",),
        ("queues", "--url", "http://me:secret@127.0.0.1:9"),
        ("queues", "--key", "slk_a b"),
        ("work", "q", "--exec", "true", "--key", "slk_a b"),
    )
    for arguments in wrong:
        ended = command(*arguments, SLUICE_URL="http://127.0.0.1:9")
        assert (ended.code, ended.out) == (2, ""), arguments
        assert "secret" not in ended.err and "slk_" not in ended.err
    assert "text must be quoted" in command("tasks", "enqueue", "q", "hello").err


def test_a_list_is_filtered_and_paged(ask: Command, queue: str) -> None:
    ids = [ask("tasks", "enqueue", queue, str(n), "--tag", f"t{n % 2}", "--json").json["id"] for n in range(4)]
    listed = ask("tasks", "list", "--queue", queue)
    assert [line.split()[0] for line in listed.out.splitlines()] == ["id", *reversed(ids)]
    assert "waiting for worker" in listed.out
    odd = ask("tasks", "list", "--queue", queue, "--tag", "t1", "--state", "ready", "--json").json
    assert [task["id"] for task in odd] == [ids[3], ids[1]]
    few = ask("tasks", "list", "--queue", queue, "--limit", "2")
    assert [line.split()[0] for line in few.out.splitlines()[1:]] == [
        ids[3],
        ids[2],
    ] and "--limit shows more" in few.err
    none = ask("tasks", "list", "--queue", queue, "--state", "dead")
    assert (none.code, none.out, none.err) == (0, "", "No tasks match.\n")
    assert ask("tasks", "list", "--queue", queue, "--state", "dead", "--json").json == []


@pytest.mark.parametrize("noun", ["queue", "handler", "schedule", "batch"])
def test_a_list_of_tasks_of_nothing_says_so(ask: Command, noun: str) -> None:
    named = str(uuid4()) if noun == "batch" else "nosuch"
    ended = ask("tasks", "list", f"--{noun}", named)
    assert (ended.code, ended.out, "No tasks match" in ended.err) == (1, "", False)
    assert ended.err.startswith(f"{noun}_not_found: there is no {noun} {named}")
    ended = ask("tasks", "list", f"--{noun}", named, "--json")
    assert (ended.code, ended.out, ended.problem["code"]) == (1, "", f"{noun}_not_found")
    assert ask("tasks", "list", f"--{noun}", "no name").code == 2


def test_a_redrive_for_a_handler_that_is_not_there_says_so(ask: Command, queue: str) -> None:
    for more in ([], ["--dry-run"]):
        ended = ask("redrive", queue, "--handler", "nosuch", *more)
        assert ended.code == 1 and ended.err.startswith("handler_not_found: ")


HOSTILE = "a\x7f\x9b31m\u202egnp.\u2066\u200b\u200e\ufeff\u2028\U000e0041é漢"


def told_plainly(ended: Ended) -> bool:
    return "é漢" in ended.out and all(letter.isprintable() or letter == "\n" for letter in ended.out)


def test_what_a_terminal_would_obey_stays_escaped_in_json_too(
    ask: Command, command: Command, scripted: Scripted, queue: str
) -> None:
    made = ask("tasks", "enqueue", queue, json.dumps(HOSTILE), "--json")
    for ended in (made, ask("tasks", "show", made.json["id"], "--json")):
        assert told_plainly(ended) and ended.json["payload"] == HOSTILE
        assert all(escape in ended.out for escape in ("\\u007f", "\\u009b", "\\u202e", "\\u2066", "\\udb40\\udc41"))
    assert told_plainly(ask("tasks", "show", made.json["id"]))
    task = {"id": "1", "queue": "q", "type": HOSTILE, "state": "dead", "reason": None, "last_error": HOSTILE}
    for as_json in ([], ["--json"]):
        scripted.answer({"items": [task | {"attempt": 1, "max_attempts": 1, "created_at": ""}], "next_cursor": None})
        assert told_plainly(command("tasks", "list", *as_json, SLUICE_URL=scripted.url))


def test_what_a_service_refuses_with_does_not_steer_the_terminal(command: Command, scripted: Scripted) -> None:
    body = {"code": "invalid", "detail": HOSTILE, "errors": [{"pointer": f"/{HOSTILE}", "detail": HOSTILE}]}
    for as_json in ([], ["--json"]):
        scripted.answer(body, 422, "application/problem+json")
        ended = command("tasks", "enqueue", "q", "1", *as_json, SLUICE_URL=scripted.url)
        assert ended.code == 1 and all(letter.isprintable() or letter == "\n" for letter in ended.err)
    assert ended.problem["detail"] == HOSTILE


def test_a_long_list_is_fetched_page_by_page(command: Command, scripted: Scripted) -> None:
    scripted.answer({"items": [{"id": n} for n in range(200)], "next_cursor": "c1"})
    scripted.answer({"items": [{"id": n} for n in range(50)], "next_cursor": "c2"})
    listed = command("tasks", "list", "--limit", "250", "--json", SLUICE_URL=scripted.url)
    assert len(listed.json) == 250
    assert [path for _, path, _ in scripted.asked] == ["/tasks?limit=200", "/tasks?limit=50&cursor=c1"]


def test_a_dead_task_shows_its_attempts(ask: Command, deadly: str) -> None:
    made = ask("tasks", "enqueue", deadly, "1", "--wait", "20", "--json").json
    assert (made["state"], made["reason"]) == ("dead", "attempts_exhausted")
    shown = ask("tasks", "show", made["id"])
    assert "attempts_exhausted" in shown.out and "unreachable" in shown.out.splitlines()[-1]
    assert ask("tasks", "show", made["id"], "--json").json["attempts"][0]["outcome"] == "unreachable"


def test_what_a_task_carries_moves_no_cursor(ask: Command, queue: str) -> None:
    made = ask("tasks", "enqueue", queue, '"[red]\\u001b[2J\\u0007"', "--type", "[bold]x", "--json").json
    for arguments in (("tasks", "show", made["id"]), ("tasks", "list", "--queue", queue)):
        out = ask(*arguments).out
        assert "\x1b" not in out and "\x07" not in out and "[bold]x" in out


def test_why_says_what_stands_in_the_way_and_what_helps(ask: Command, service: httpx2.Client, queue: str) -> None:
    task_id = ask("tasks", "enqueue", queue, "1").out.split()[0]
    ask("pause", queue)
    told = ask("why", task_id)
    assert told.code == 0 and told.out.startswith(f"Queue {queue} is paused. 1 more thing stands in its way.")
    assert f"POST /queues/{queue}/resume" in told.out and "2. worker:" in told.out
    assert ask("why", task_id, "--json").json["blockers"][0]["code"] == "queue_paused"
    assert f"Queue {queue} is paused." in ask("why", "--queue", queue).out
    name = fresh("s")
    given = {"queue": queue, "payload": None, "cron": "0 0 1 1 *"}
    assert service.put(f"/schedules/{name}", json=given).status_code == 201
    assert "No time of it has come yet." in ask("why", "--schedule", name).out
    assert "has no time at" in ask("why", "--schedule", name, "--at", "2030-06-01T00:00:00Z").out
    for wrong in ((), (task_id, "--queue", queue), ("--queue", queue, "--at", "2030-06-01T00:00:00Z")):
        assert ask("why", *wrong).code == 2
    ask("tasks", "cancel", task_id)
    assert "is cancelled since" in ask("why", task_id).out


def test_one_refused_task_keeps_no_other_back(ask: Command, queue: str) -> None:
    task_id = ask("tasks", "enqueue", queue, "1", "--json").json["id"]
    ended = ask("tasks", "cancel", MISSING, task_id)
    assert (ended.code, ended.out) == (1, f"{task_id} is cancelled\n")
    assert ended.err.startswith(f"{MISSING}: task_not_found: ")
    assert "Next: `sluice tasks list` lists the tasks." in ended.err
    again = ask("tasks", "cancel", MISSING, task_id, "--json")
    assert again.code == 1 and [task["state"] for task in again.json] == ["cancelled"]
    assert again.problem["code"] == "task_not_found"


def test_queues_are_listed_paused_and_resumed(ask: Command, queue: str, deadly: str) -> None:
    ask("tasks", "enqueue", queue, "1")
    paused = ask("pause", queue)
    assert paused.code == 0 and f"sluice resume {queue}" in paused.out
    rows = {line.split()[0]: line.split() for line in ask("queues").out.splitlines()}
    assert rows[queue][1:2] == ["(pull)"] and rows[queue][-1] == "paused" and rows[deadly][1] == deadly
    found = {each["name"]: each for each in ask("queues", "--json").json}
    assert found[queue]["paused"] and found[queue]["stats"]["counts"]["ready"] == 1
    assert ask("resume", queue, "--json").json["paused"] is False
    switched = ask("pause", "--all", "--json")
    names = [one["name"] for one in switched.json]
    assert {queue, deadly} <= set(names) and switched.err == f"To resume: sluice resume {' '.join(names)}\n"
    assert ask("resume", queue, deadly).out == f"Queue {queue} is resumed.\nQueue {deadly} is resumed.\n"
    assert ask("pause").code == ask("pause", queue, "--all").code == 2
    assert ask("resume", "--all").code == 0


def test_status_shows_queues_and_replicas(ask: Command, queue: str) -> None:
    shown = ask("status")
    assert shown.code == 0 and shown.out.startswith("Sluice ")
    assert queue in shown.out and "database connections" in shown.out and "all" in shown.out.splitlines()[-1]
    ask("tasks", "enqueue", queue, "1")
    ask("pause", queue)
    assert f"! {queue}: the queue is paused while 1 task is ready" in ask("status").out
    assert {"version", "replicas", "queues", "alarms"} <= set(ask("status", "--json").json)


def watching(service: httpx2.Client, *options: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "app.cli.main", "status", "--watch", "--every", "0.1", *options],
        # room for all queues that other tests have left; pytest's readline may have left a size of its own
        env={**os.environ, "SLUICE_URL": str(service.base_url), "TERM": "xterm", "COLUMNS": "500", "LINES": "2000"},
        cwd=ROOT,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


def interrupted(process: subprocess.Popen[str]) -> tuple[int, str]:
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    return process.returncode, said


def test_a_watch_for_programs_is_a_line_a_look_until_ctrl_c(service: httpx2.Client, queue: str) -> None:
    process = watching(service, "--json")
    assert process.stdout is not None
    looks = [json.loads(process.stdout.readline()) for _ in range(3)]
    assert all(queue in {row["queue"] for row in look["queues"]} for look in looks)
    assert interrupted(process) == (0, "")


def test_a_watch_into_a_pipe_is_told_as_it_comes(service: httpx2.Client, queue: str) -> None:
    process = watching(service)
    assert process.stdout is not None
    heads = (line for line in process.stdout if line.startswith("Sluice "))
    assert next(heads) and next(heads)
    assert interrupted(process) == (0, "")


def test_a_watch_in_a_terminal_is_drawn_over_itself(service: httpx2.Client, queue: str) -> None:
    ours, theirs = os.openpty()
    process = watching(service, stdout=theirs)
    os.close(theirs)
    drawn = b""
    while drawn.count(b"database connections") < 3:
        drawn += os.read(ours, 65_536)
    assert queue.encode()[:8] in drawn and b"\x1b[2K" in drawn
    assert interrupted(process) == (0, "")
    os.close(ours)


def test_a_problem_says_its_code_its_places_and_what_to_do_next(ask: Command, queue: str) -> None:
    missing = ask("pause", "no-such-queue")
    assert (missing.code, missing.out) == (1, "")
    assert missing.err.startswith("queue_not_found: ") and "Next: `sluice queues` lists the queues." in missing.err
    invalid = ask("tasks", "enqueue", queue, "1", "--delay", "1", "--at", "tomorrow")
    assert invalid.code == 1 and "  /run_at " in invalid.err
    assert ask("resume", "no-such-queue", "--json").problem["code"] == "queue_not_found"


def test_keys_are_asked_for_in_a_sentence_and_shown_nowhere(command: Command, scripted: Scripted) -> None:
    problem = {"code": "unauthenticated", "detail": "the key is not known", "errors": []}
    scripted.answer(problem, 401, "application/problem+json")
    ended = command("queues", SLUICE_URL=scripted.url, SLUICE_KEY="slk_secret0000")
    assert ended.code == 1 and "SLUICE_KEY or --key" in ended.err
    assert "slk_secret0000" not in ended.err + command("queues", "--help").out


def test_nobody_there_is_an_exit_code_of_its_own(command: Command) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for arguments in (("status",), ("queues",), ("tasks", "list"), ("pause", "q"), ("status", "--watch")):
            ended = command(*arguments, SLUICE_URL=url)
            assert (ended.code, ended.out) == (3, "")
            assert f"no response from {url}" in ended.err and "sluice up" in ended.err and "SLUICE_URL" in ended.err
        assert command("queues", "--json", SLUICE_URL=url).problem["code"] == "unreachable"


def test_nothing_is_repeated_behind_ones_back(command: Command, scripted: Scripted) -> None:
    problem = {"code": "unavailable", "detail": "the database does not answer", "errors": []}
    scripted.answer(problem, 503, "application/problem+json")
    ended = command("queues", SLUICE_URL=scripted.url)
    assert ended.code == 1 and "Next: try again" in ended.err and len(scripted.asked) == 1


@pytest.mark.parametrize(("status", "media_type"), [(200, "text/html"), (404, "text/html"), (302, "text/plain")])
def test_another_server_is_told_apart(command: Command, scripted: Scripted, status: int, media_type: str) -> None:
    scripted.answer(b"<h1>hello</h1>", status, media_type)
    ended = command("queues", SLUICE_URL=scripted.url)
    assert ended.code == 3 and "is not Sluice" in ended.err


def test_a_purge_cancels_what_waits(ask: Command, queue: str) -> None:
    ids = {ask("tasks", "enqueue", queue, "1", "--json").json["id"] for _ in range(3)}
    assert ask("purge", queue).out == f"3 waiting tasks of queue {queue} are cancelled.\n"
    listed = ask("tasks", "list", "--queue", queue, "--reason", "purged", "--json").json
    assert {task["id"] for task in listed} == ids
    assert ask("purge", queue, "--json").json == {"purged": 0}
    assert ask("purge", "no-such-queue").code == 1


def test_dead_tasks_are_redriven_by_filter(ask: Command, deadly: str) -> None:
    for tag in ("a", "a", "b"):
        ended = ask("tasks", "enqueue", deadly, "1", "--tag", tag, "--wait", "20", "--json")
        assert ended.json["state"] == "dead"
    assert ask("pause", deadly).code == 0
    tried = ask("redrive", deadly, "--dry-run", "--json").json
    assert (tried["matched"], tried["moved"]) == (3, 0)
    assert ask("redrive", deadly, "--tag", "a").out == f"2 dead tasks of queue {deadly} are ready again.\n"
    assert ask("redrive", deadly, "--limit", "5", "--json").json == {"matched": 1, "moved": 1, "remaining": 0}
    assert len(ask("tasks", "list", "--queue", deadly, "--state", "ready", "--json").json) == 3
    assert ask("redrive", deadly, "--reason", "no-reason").code == 1


def test_one_is_told_in_the_singular(ask: Command, command: Command, scripted: Scripted, queue: str) -> None:
    ask("tasks", "enqueue", queue, "1")
    assert ask("purge", queue).out == f"1 waiting task of queue {queue} is cancelled.\n"
    scripted.answer({"matched": 2, "moved": 1, "remaining": 1})
    ended = command("redrive", "mail", "--limit", "1", SLUICE_URL=scripted.url)
    assert ended.out.startswith("1 dead task of queue mail is ready again.\n1 that matches and is still dead: ")
    scripted.answer({"matched": 1, "moved": 0, "remaining": 1})
    ended = command("redrive", "mail", "--dry-run", SLUICE_URL=scripted.url)
    assert ended.out == "1 dead task of queue mail would be ready again.\n"


def test_a_redrive_goes_page_by_page_and_no_further_than_matched_at_first(command: Command, scripted: Scripted) -> None:
    for answer in (
        {"matched": 2500, "moved": 1000, "remaining": 1500},
        {"matched": 1700, "moved": 1000, "remaining": 700},  # 200 have died again
        {"matched": 900, "moved": 500, "remaining": 400},
    ):
        scripted.answer(answer)
    ended = command("redrive", "mail", "--reason", "fatal_status", "--tag", "t", SLUICE_URL=scripted.url)
    assert ended.code == 0 and ended.out.startswith("2,500 dead tasks of queue mail are ready again.\n400 that match")
    body = {"reason": "fatal_status", "tag": "t"}
    assert scripted.asked == [("POST", "/queues/mail/redrive", {**body, "limit": limit}) for limit in (1000, 1000, 500)]


def test_a_redrive_that_can_move_no_more_ends(command: Command, scripted: Scripted) -> None:
    scripted.answer({"matched": 5, "moved": 3, "remaining": 2})
    scripted.answer({"matched": 2, "moved": 0, "remaining": 2})
    ended = command("redrive", "mail", "--json", SLUICE_URL=scripted.url)
    assert ended.json == {"matched": 5, "moved": 3, "remaining": 2}


def test_a_redrive_may_be_bounded_or_only_tried(command: Command, scripted: Scripted) -> None:
    scripted.answer({"matched": 5, "moved": 0, "remaining": 5})
    tried = command("redrive", "mail", "--dry-run", SLUICE_URL=scripted.url)
    assert tried.out == "5 dead tasks of queue mail would be ready again.\n"
    assert scripted.asked[0][2] == {"limit": 1000, "dry_run": True}
    scripted.answer({"matched": 5, "moved": 2, "remaining": 3})
    assert command("redrive", "mail", "--limit", "2", SLUICE_URL=scripted.url).code == 0
    assert scripted.asked[1][2] == {"limit": 2}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete(command: Command, shell: str) -> None:
    script = command("--show-completion", shell)
    assert script.code == 0 and "_SLUICE_COMPLETE" in script.out


def test_commands_are_completed(command: Command) -> None:
    asked = {"_SLUICE_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    assert command(COMP_WORDS="sluice ta", **asked).out.split() == ["tasks"]
    assert set(command(COMP_WORDS="sluice re", **asked).out.split()) == {"resume", "redrive", "revoke"}


def test_the_clients_variables_are_no_typing_errors() -> None:
    from app.settings import unknown_variables

    assert unknown_variables({"SLUICE_URL": "http://x", "SLUICE_KEY": "slk_x"}) == []
    assert len(unknown_variables({"SLUICE_URLS": "http://x"})) == 1


def test_a_limit_is_shown_set_and_granted(ask: Command) -> None:
    assert ask("limit").out == "This tenant has no limit across its queues.\n"
    assert ask("limit", "700").out == "This tenant runs at most 700 tasks at once.\n"
    granted = ask("limit", "--tenant", "default", "800")
    assert granted.out == "Tenant default is granted at most 800 tasks at once by an operator.\n"
    refused = ask("limit", "900")
    assert (refused.code, "800" in refused.err) == (1, True)
    shown = ask("limit", "--json").json
    assert (shown["max_concurrency"], shown["granted_max_concurrency"]) == (700, 800)
    assert ask("limit", "none").out == "This tenant is granted at most 800 tasks at once by an operator.\n"
    assert ask("limit", "--tenant", "default", "none").out == "Tenant default is granted any number of tasks.\n"
    assert ask("limit", "0").code == 2


def test_limits_are_set_shown_paused_and_deleted(ask: Command, service: httpx2.Client) -> None:
    assert ask("limits", "set", "mail-api", "--rate", "500/60", "--max-concurrency", "20").out == (
        "Limit mail-api is set.\n"
    )
    assert ask("limits", "set", "mail-api", "--burst", "5", "--description", "theirs").code == 0
    shown = ask("limits", "show", "mail-api", "--json").json
    assert (shown["max_concurrency"], shown["description"]) == (20, "theirs")
    assert shown["rate"] == {"limit": 500, "period_seconds": 60, "burst": 5}
    assert ask("limits", "pause", "mail-api").out == "Limit mail-api is paused.\n"
    assert "500 per 60 s, burst 5" in (listed := ask("limits", "list").out) and "paused" in listed
    assert ask("limits", "resume", "mail-api").code == 0
    assert ask("limits", "set", "mail-api", "--rate", "none").code == 0
    assert ask("limits", "show", "mail-api", "--json").json["rate"] is None
    service.put("/queues/mail-limited", json={"limits": ["mail-api"]}).raise_for_status()
    refused = ask("limits", "delete", "mail-api")
    assert refused.code == 1 and "mail-limited" in refused.err
    service.delete("/queues/mail-limited").raise_for_status()
    assert ask("limits", "delete", "mail-api").out == "Limit mail-api is deleted.\n"
    assert "sluice limits list" in ask("limits", "show", "mail-api").err
    for wrong in (
        ("--rate", "fast"),
        ("--rate", "0/1"),
        ("--rate", "inf"),
        ("--max-concurrency", "0"),
        ("--burst", "3"),
    ):
        assert ask("limits", "set", "mail-api", *wrong).code == 2, wrong


def test_the_keys_of_a_limit_are_set_listed_and_paused(ask: Command) -> None:
    assert ask("limits", "set", "per-customer", "--keyed", "--max-concurrency", "2").code == 0
    assert ask("limits", "keys", "per-customer").err == "No keys match.\n"
    assert ask("limits", "set", "per-customer", "--of-key", "a/b", "--max-concurrency", "9").out == (
        "Key a/b of limit per-customer is set.\n"
    )
    assert ask("limits", "pause", "per-customer", "--of-key", "a/b").code == 0
    assert "a/b" in (listed := ask("limits", "keys", "per-customer", "--state", "full").out) and "paused" in listed
    assert ask("limits", "show", "per-customer", "--of-key", "a/b", "--json").json["max_concurrency"] == 9
    assert ask("limits", "delete", "per-customer", "--of-key", "a/b").code == 0
    assert ask("limits", "keys", "per-customer", "--json").json == []
    assert ask("limits", "delete", "per-customer").code == 0


def test_a_task_is_enqueued_with_a_key_and_limits(ask: Command, queue: str) -> None:
    assert ask("limits", "set", "tokens", "--rate", "100/1", "--burst", "50").code == 0
    made = ask("tasks", "enqueue", queue, "1", "--task-key", "acme", "--limit", "tokens:20", "--json").json
    assert (made["key"], made["limits"]) == ("acme", [{"name": "tokens", "key": None, "cost": 20}])
    wrong = ask("tasks", "enqueue", queue, "1", "--limit", "tokens:many")
    assert wrong.code == 2 and "NAME:COST" in wrong.err
    assert ask("tasks", "enqueue", queue, "1", "--limit", "none").code == 1


def test_changes_are_listed_with_who_made_them_and_what_they_changed(
    ask: Command, service: httpx2.Client, queue: str
) -> None:
    assert ask("pause", queue).code == 0
    assert ask("purge", "not-there", "--yes").code == 1
    listed = ask("audit", "--name", queue)
    head, paused, put = listed.out.splitlines()
    assert head.split()[:3] == ["at", "(UTC)", "actor"]
    assert paused.split()[2:] == ["anyone", "pause", "queue", queue, "done", "paused:", "false", "→", "true"]
    assert put.split()[3:] == ["put", "queue", queue, "done"]
    (row,) = ask("audit", "--verb", "purge", "--name", "not-there", "--json").json
    assert (row["outcome"], row["code"], row["actor"]["scope"]) == ("refused", "queue_not_found", "operate")
    assert "No changes match" in ask("audit", "--actor", "system", "--name", queue).err
    assert "Only the newest 1 change" in ask("audit", "--limit", "1").err
