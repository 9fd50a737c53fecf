"""The data of `make seed`: the background work of a small shop, with tasks in every state.

Tasks get their states as usual: they are delivered, leased, cancelled or left waiting. Nothing is written to the database
directly. The history of the schedules comes from backfills.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from app.cli.client import Client
from app.cli.failures import Failure

SETTLED = ("mail", "invoices", "reports", "sync")
"""Queues whose tasks all end before the seed does."""
WAIT_SECONDS = 120.0
LONG_SECONDS = 43_200
PEOPLE = ("ada", "grace", "alan", "edsger", "barbara", "donald", "frances", "ken")

HANDLERS: dict[str, dict[str, Any]] = {
    "mailer": {"description": "Sends mail.", "timeout_seconds": 10, "fatal_statuses": [422]},
    "billing": {"description": "Writes invoices and refunds.", "max_concurrency": 8},
    "analytics": {"description": "Reports and exports."},
    "crm": {"description": "The CRM of the sales team."},
    "old-crm": {"description": "Switched off."},
}
_SOON = {"kind": "fixed", "seconds": 0.2}
QUEUES: dict[str, dict[str, Any]] = {
    "mail": {"handler": "mailer", "max_concurrency": 20, "retry": {"backoff": _SOON}},
    "reminders": {"handler": "mailer", "description": "Tasks for later."},
    "newsletter": {"handler": "mailer", "description": "Paused."},
    "invoices": {"handler": "billing", "max_concurrency": 5, "retry": {"max_attempts": 3, "backoff": _SOON}},
    "reports": {"handler": "analytics", "description": "Each report enqueues mail with its answer."},
    "exports": {"handler": "analytics", "description": "Each export holds its lease for hours."},
    "sync": {"handler": "crm", "retry": {"max_attempts": 1}},
    "contacts": {"handler": "old-crm", "description": "Its handler is disabled."},
    "thumbnails": {"description": "For pull workers.", "max_depth": 1000},
}
SCHEDULES: dict[str, dict[str, Any]] = {
    "daily-report": {"queue": "reports", "cron": "0 3 * * *", "timezone": "Europe/Berlin", "payload": {"n": 1}},
    "hourly-sync": {"queue": "sync", "cron": "0 * * * *", "payload": {"n": 1}, "catch_up": {"mode": "none"}},
    "monthly-invoices": {"queue": "invoices", "cron": "0 8 L * *", "payload": {"n": 1}, "type": "monthly"},
    "weekly-newsletter": {"queue": "newsletter", "cron": "30 9 * * MON", "payload": {"n": 1}},
}

Step = Callable[[Client], None]


def define(client: Client, handler_url: str) -> None:
    for name, handler in HANDLERS.items():
        client.put(f"/handlers/{name}", {"url": f"{handler_url}/{name}", **handler})
    for name, queue in QUEUES.items():
        client.put(f"/queues/{name}", queue)
    for name, schedule in SCHEDULES.items():
        client.put(f"/schedules/{name}", schedule)
    client.post("/queues/newsletter/pause")
    client.post("/schedules/weekly-newsletter/pause")
    client.post("/handlers/old-crm/disable")


def deliveries(client: Client) -> None:
    """Most succeed, some of them late; some are dead."""
    kinds = ("welcome", "receipt", "password-reset")
    mail = [
        _task(n, type=kinds[n % 3], tags=["web" if n % 2 else "app"], correlation_id=f"signup-{n}") for n in _up_to(150)
    ]
    _enqueue(client, "mail", mail)
    _enqueue(
        client, "invoices", [_task(n, type="refund" if n % 4 == 0 else "invoice", priority=n % 3) for n in _up_to(60)]
    )
    _enqueue(client, "exports", [_task(n, timeout_seconds=600) for n in _up_to(2)])


def waiting(client: Client) -> None:
    """Tasks that wait for a time, an operator, a handler or a worker, and some cancelled ones."""
    _enqueue(client, "reminders", [_task(n, delay_seconds=3600 * n) for n in _up_to(40)])
    _enqueue(client, "newsletter", [_task(n, tags=["issue-12"]) for n in _up_to(80)])
    _enqueue(client, "newsletter", [_task(n, tags=["issue-11"], ttl_seconds=1) for n in _up_to(5)])
    _enqueue(client, "contacts", [_task(n) for n in _up_to(15)])
    for task_id in _enqueue(client, "reminders", [_task(n, delay_seconds=86_400) for n in _up_to(6)]):
        client.post(f"/tasks/{task_id}/cancel")


def pull_worker(client: Client) -> None:
    """A worker leased some thumbnails: it has finished most, failed one for good, and still holds three."""
    _enqueue(client, "thumbnails", [_task(n, type="resize", headers={"x-size": "400"}) for n in _up_to(30)])
    leased = client.post("/queues/thumbnails/leases", {"max_tasks": 12, "lease_seconds": LONG_SECONDS})["tasks"]
    for n, task in enumerate(leased):
        path, token = f"/tasks/{task['id']}", task["lease_token"]
        if n < 3:
            progress = {"percent": 20 * (n + 1)}
            client.post(f"{path}/renew", {"seconds": LONG_SECONDS, "progress": progress}, lease_token=token)
        elif n == 3:
            client.post(f"{path}/fail", {"error": "the file is not an image", "retryable": False}, lease_token=token)
        else:
            client.post(f"{path}/complete", {"result": {"bytes": 1000 * n}}, lease_token=token)


def batches(client: Client) -> None:
    """One batch that completes, and one that is still open."""
    done = {"queue": "mail", "payload": {"n": 1, "to": "ada@example.com"}}
    client.post("/batches", {"queue": "invoices", "tasks": [_task(n) for n in _up_to(25)], "on_complete": done})
    client.post("/batches", {"queue": "thumbnails", "tasks": [_task(n) for n in _up_to(10)], "sealed": False})


def schedules(client: Client) -> None:
    """Two weeks of reports and a day of syncs, some of them failed, and one triggered run."""
    now = datetime.now(UTC)
    for name, past in (("daily-report", timedelta(days=14)), ("hourly-sync", timedelta(days=1))):
        window = {"from": (now - past).isoformat(), "to": now.isoformat(), "overlap": "allow_all"}
        client.post(f"/schedules/{name}/backfill", window)
    client.post("/schedules/monthly-invoices/trigger", {"payload": {"n": 7}})


STEPS: tuple[tuple[str, Step], ...] = (
    ("deliveries", deliveries),
    ("waiting tasks", waiting),
    ("a pull worker", pull_worker),
    ("batches", batches),
    ("runs of schedules", schedules),
)


def settle(client: Client) -> None:
    """Wait until every task that can end has ended. Raises Failure."""
    deadline = time.monotonic() + WAIT_SECONDS
    while unfinished := [name for name in SETTLED if _unfinished(client, name)]:
        if time.monotonic() > deadline:
            raise Failure(
                f"After {WAIT_SECONDS:.0f} s tasks of {', '.join(unfinished)} have not ended: `sluice queues`"
            )
        time.sleep(0.1)


def counts(client: Client) -> dict[str, dict[str, int]]:
    """Tasks by queue and state."""
    return {name: dict(client.get(f"/queues/{name}/stats")["counts"]) for name in QUEUES}


def _unfinished(client: Client, queue: str) -> bool:
    tasks = client.get(f"/queues/{queue}/stats")["counts"]
    return any(tasks[state] for state in ("scheduled", "ready", "running"))


def _enqueue(client: Client, queue: str, tasks: list[dict[str, Any]]) -> list[str]:
    """Their ids."""
    results = client.post(f"/queues/{queue}/tasks/bulk", {"tasks": tasks, "atomic": True})["results"]
    return [result["id"] for result in results]


def _task(n: int, **options: Any) -> dict[str, Any]:
    return {"payload": {"n": n, "to": f"{PEOPLE[n % len(PEOPLE)]}@example.com"}, **options}


def _up_to(most: int) -> range:
    return range(1, most + 1)
