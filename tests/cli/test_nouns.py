"""`sluice schedules`, `sluice sources`, `sluice batches`, `sluice handlers`, and how an enqueue that waits ends."""

import httpx2
import pytest

from app.cli.screen import shown_id
from tests.cli.conftest import Command, Scripted
from tests.wire.api import fresh

pytestmark = pytest.mark.ci

GONE = "http://127.0.0.1:9/hook"


@pytest.fixture
def queue(service: httpx2.Client) -> str:
    name = fresh("q")
    assert service.put(f"/queues/{name}", json={}).status_code == 201
    return name


@pytest.fixture
def schedule(service: httpx2.Client, queue: str) -> str:
    name = fresh("nightly")
    body = {"queue": queue, "cron": "0 3 * * *", "payload": {"n": 1}}
    assert service.put(f"/schedules/{name}", json=body).status_code == 201
    return name


def test_a_schedule_is_listed_shown_triggered_paused_and_resumed(ask: Command, schedule: str) -> None:
    listed = next(line for line in ask("schedules", "list").out.splitlines() if schedule in line)
    assert "03:00" in listed
    assert schedule in {one["id"] for one in ask("schedules", "list", "--json").json}
    assert "T03:00:00" in ask("schedules", "show", schedule).out
    ran = ask("schedules", "trigger", schedule, "--payload", '{"n": 2}', "--json").json
    assert ask("tasks", "show", ran["task_id"], "--json").json["payload"] == {"n": 2}
    again = ask("schedules", "trigger", schedule, "--overlap", "allow_all")
    assert again.out.startswith(f"Schedule {schedule}: running, task ")
    rows = ask("schedules", "history", schedule, "--outcome", "running", "--json").json
    assert [row["cause"] for row in rows] == ["trigger", "trigger"] and rows[1]["task_id"] == ran["task_id"]
    assert ran["task_id"] in ask("schedules", "history", schedule).out
    assert ask("schedules", "pause", schedule).out.startswith(f"Schedule {schedule} is paused.")
    assert ask("schedules", "show", schedule, "--json").json["paused"]
    assert ask("schedules", "resume", schedule).out == f"Schedule {schedule} is resumed.\n"
    assert ask("schedules", "trigger", schedule, "--payload", "hello").code == 2
    assert ask("schedules", "show", "no-such-schedule").code == 1


def test_a_source_is_listed_shown_tested_paused_and_resumed(ask: Command, service: httpx2.Client, queue: str) -> None:
    name = fresh("orders")
    body = {"kind": "redis_stream", "queue": queue, "url": "redis://127.0.0.1:9", "stream": "s", "group": "g"}
    assert service.put(f"/sources/{name}", json=body).status_code == 201
    assert ask("sources", "pause", name).out.startswith(f"Source {name} is paused.")
    assert any(name in line and "paused" in line for line in ask("sources", "list").out.splitlines())
    assert ask("sources", "show", name, "--json").json["queue"] == queue
    assert "stream" in ask("sources", "show", name).out
    tested = ask("sources", "test", name)
    assert tested.code == 1 and tested.out.startswith(f"Source {name} fails: ")
    assert ask("sources", "resume", name).out == f"Source {name} is resumed.\n"
    assert ask("sources", "show", "no-such-source").code == 1
    assert service.delete(f"/sources/{name}").status_code == 204


def test_times_of_the_past_are_backfilled(ask: Command, schedule: str) -> None:
    window = ("--from", "2024-05-01T00:00:00Z", "--to", "2024-05-04T00:00:00Z")
    done = ask("schedules", "backfill", schedule, *window, "--overlap", "allow_all")
    assert done.out == f"Schedule {schedule}: 3 times in that window: 3 started\n"
    again = ask("schedules", "backfill", schedule, *window, "--json").json
    assert (again["matched"], again["passed_over"]) == (3, 3)


def test_a_batch_is_listed_shown_cancelled_and_retried(ask: Command, service: httpx2.Client, queue: str) -> None:
    body = {"queue": queue, "tasks": [{"payload": n} for n in range(3)]}
    made = service.post("/batches", json=body).json()["id"]
    assert made in {one["id"] for one in ask("batches", "list", "--json").json}
    line = next(line for line in ask("batches", "list").out.splitlines() if made in line)
    assert queue in line and line.split()[2] == "3"
    shown = ask("batches", "show", made)
    assert "running" in shown.out and "3 ready" in shown.out
    assert ask("batches", "cancel", made).out == f"Batch {made} is cancelled.\n"
    assert ask("batches", "show", made, "--json").json["counts"]["cancelled"] == 3
    assert ask("batches", "retry", made, "--json").json["moved"] == 0
    assert ask("batches", "show", "no-id").code == 2


def test_an_action_is_tried_started_listed_shown_and_ended_early(
    ask: Command, service: httpx2.Client, queue: str
) -> None:
    for n in range(6):
        service.post(f"/queues/{queue}/tasks", json={"payload": n, "type": "old" if n < 3 else "new"})
    tried = ask("actions", "start", "cancel", "--queue", queue, "--type", "old", "--dry-run")
    assert tried.out.startswith("3 tasks would be changed.") and tried.out.count(queue) == 3
    made = ask("actions", "start", "cancel", "--queue", queue, "--type", "old", "--because", "stale", "--json").json
    assert (made["state"], made["done"], made["reason"]) == ("done", 3, "stale")
    slow = ask("actions", "start", "purge", "--queue", queue, "--rate", "0.1", "--detach", "--yes", "--json").json
    assert (slow["state"], slow["matched"]) == ("running", 3)
    ended = ask("actions", "cancel", slow["id"][-12:])
    assert ended.out == f"Action {slow['id']} is cancelled: {slow['done']} task of 3 changed.\n"
    listed = ask("actions", "list", "--limit", "2").out
    assert made["id"] in listed and slow["id"] in listed
    assert "stale" in ask("actions", "show", made["id"]).out
    assert ask("actions", "start", "cancel").code == 1, "an empty filter"
    assert ask("actions", "show", "no-id").code == 2


def test_the_errors_of_a_queue_are_listed_alike_ones_together(ask: Command, service: httpx2.Client, queue: str) -> None:
    assert "No task" in ask("errors", queue).err
    for n in range(2):
        service.post(f"/queues/{queue}/tasks", json={"payload": n})
    for n, task in enumerate(service.post(f"/queues/{queue}/leases", json={"max_tasks": 2}).json()["tasks"]):
        body, headers = {"error": f"no order {n}", "retryable": False}, {"sluice-lease-token": task["lease_token"]}
        assert service.post(f"/tasks/{task['id']}/fail", json=body, headers=headers).status_code == 200
    assert "no order #" in ask("errors", queue).out
    (group,) = ask("errors", queue, "--json").json["items"]
    assert (group["count"], group["dead"]) == (2, 2)
    assert ask("errors", "no-such-queue").code == 1


def test_the_last_part_of_an_id_is_enough(ask: Command, service: httpx2.Client, queue: str) -> None:
    made = service.post("/batches", json={"queue": queue, "tasks": [{"payload": n} for n in range(3)]}).json()
    ids = [result["id"] for result in made["results"]]
    assert ask("tasks", "show", ids[1][-12:], "--json").json["id"] == ids[1]
    assert ask("tasks", "cancel", *(one[-12:] for one in ids)).code == 0
    assert ask("batches", "show", made["id"][-12:].upper(), "--json").json["counts"]["cancelled"] == 3
    missing = ask("tasks", "show", "0" * 12)
    assert missing.code == 1 and missing.err.endswith("Next: give the whole id.\n")


def test_a_terminal_shows_the_last_part_of_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = "01890000-0000-7000-8000-00000000abcd"
    assert shown_id(whole) == whole
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert shown_id(whole) == "00000000abcd"


def test_a_handler_is_listed_shown_disabled_and_rotated(ask: Command, service: httpx2.Client) -> None:
    name = fresh("hook")
    first = service.put(f"/handlers/{name}", json={"url": GONE}).json()["secret"]
    assert next(line for line in ask("handlers", "list").out.splitlines() if name in line).split() == [name, GONE]
    assert ask("handlers", "disable", name).out.startswith(f"Handler {name} is disabled.")
    assert ask("handlers", "show", name, "--json").json["enabled"] is False
    assert "disabled" in ask("handlers", "list").out
    assert ask("handlers", "enable", name).out == f"Handler {name} is enabled.\n"
    secret = ask("handlers", "rotate", name, "--overlap", "60").out.strip()
    assert secret.startswith("whsec_") and secret != first and secret not in ask("handlers", "show", name).out


def test_a_handler_of_a_redis_stream_is_listed_as_one(ask: Command, service: httpx2.Client) -> None:
    name = fresh("stream")
    address = {"kind": "redis_stream", "url": "redis://127.0.0.1:1", "stream": "reminders"}
    service.put(f"/handlers/{name}", json=address).raise_for_status()
    line = next(line for line in ask("handlers", "list").out.splitlines() if name in line)
    assert line.split() == [name, "stream", "reminders"]


def test_a_test_of_a_handler_shows_both_sides_and_ends_with_the_outcome(
    ask: Command, service: httpx2.Client, scripted: Scripted
) -> None:
    name = fresh("hook")
    service.put(f"/handlers/{name}", json={"url": scripted.url + "/hook"})
    scripted.answer("fine")
    scripted.answer("no", status=500)
    good = ask("handlers", "test", name, "--payload", '{"n": 1}')
    assert good.code == 0, good.err
    assert good.out.startswith(f"POST {scripted.url}/hook\n") and '{"n": 1}' in good.out and "fine" in good.out
    bad = ask("handlers", "test", name, "--json")
    assert (bad.code, bad.json["received"]["status"]) == (1, 500)


def test_an_enqueue_that_waits_ends_with_what_became_of_the_task(
    ask: Command, service: httpx2.Client, queue: str, scripted: Scripted
) -> None:
    name = fresh("hook")
    service.put(f"/handlers/{name}", json={"url": scripted.url + "/hook"})
    service.put(f"/queues/{name}", json={"handler": name, "retry": {"max_attempts": 1}})
    scripted.answer("fine")
    scripted.answer("no", status=500)
    assert ask("tasks", "enqueue", name, "1", "--wait", "20").code == 0
    assert ask("tasks", "enqueue", name, "1", "--wait", "20").code == 4
    left = ask("tasks", "enqueue", queue, "1", "--wait", "0.1", "--unique-key", "one", "--json")
    assert left.code == 5
    assert ask("tasks", "enqueue", queue, "2", "--unique-key", "one", "--json").json["id"] == left.json["id"]
