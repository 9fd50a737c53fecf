"""Every guide and every runbook, gone through from top to bottom as a reader would, each beside a Sluice of its own."""

import asyncio
import base64
import json
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.docs.pages import ROOT, blocks
from tests.docs.reader import Reader, reader
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api, good, own_limits, problem

pytestmark = [
    pytest.mark.ci,
    pytest.mark.anyio,
    pytest.mark.skipif(shutil.which("curl") is None, reason="it is told in curl"),
]

DOCS = ROOT / "docs"
NOT_WALKED = {
    "../examples/monthly_reports/README.md": "test_monthly_reports.py goes through it, with a database of tenants",
    "../examples/bucket_cleanup/README.md": "test_bucket_cleanup.py goes through it, with a bucket",
    "../examples/integrations/README.md": "a table; test_integrations.py runs what it lists",
    "../examples/usage_tracking/README.md": "test_usage_tracking.py goes through it, with a service for events",
    "guides/sources.md": "has no line of shell; tests/engine/test_receiving.py holds Sluice to it",
    "guides/sqs-wire.md": "test_sqs_wire.py runs its programs, with clients of SQS",
    "guides/sqs-behind.md": "test_sqs_behind.py goes through it, with an SQS server",
    "guides/celery-on-sluice.md": "test_celery_on_sluice.py runs its lines, with a Celery worker",
    "guides/python-sdk.md": "has no line of shell; test_python_guides.py runs its programs",
    "guides/python-workers.md": "has no line of shell; tests/sdk/serving/test_guides.py runs its programs",
    "guides/python-fastapi.md": "has no line of shell; tests/sdk/serving/test_guides.py runs its programs",
    "guides/python-django.md": "has no line of shell; tests/sdk/serving/test_guides.py runs its programs",
    "guides/testing-python.md": "has no line of shell; test_python_guides.py runs its tests",
    "guides/from-celery.md": "has no line of shell; test_python_guides.py runs both forms of its shop",
    "guides/enqueue-in-your-transaction.md": "has no line of shell; tests/sql/test_guide.py runs its code",
    "guides/coming-from.md": "tables, and no line of shell",
    "concepts/performance.md": "tests/cli/test_up.py starts a replica for each role, as it does",
    "guides/containers.md": "starts containers; test_compose.py holds it to the compose file",
    "guides/installing.md": "fetches packages; tests/install builds, installs and runs what it speaks of",
    "guides/command-line.md": "has no line of shell; tests/cli runs the commands",
    "guides/pages.md": "has no line of shell; tests/ui goes through the pages",
    "guides/postgres.md": "SQL for a server of one's own; tests/store/test_rights.py runs it",
    "guides/database-connections.md": "arithmetic and limits, and no line of shell",
    "guides/keys-and-permissions.md": "needs API keys; test_keys_pages.py runs it",
    "runbooks/rotate-keys.md": "needs API keys; test_keys_pages.py runs it",
    "guides/behind-a-proxy.md": "has no line of shell; test_proxies.py runs its configuration",
}
Walk = Callable[["Page"], Awaitable[None]]
WALKS: dict[str, Walk] = {}


@dataclass
class Page:
    """A page being read: `on` types its next block of shell."""

    reader: Reader
    api: Api
    left: list[str]
    said: list[str] = field(default_factory=list)

    async def on(self) -> str:
        self.said.append(await self.reader.types(self.left.pop(0)))
        return self.said[-1]

    async def to_the_end(self) -> str:
        while self.left:
            await self.on()
        return "".join(self.said)


def walk(page: str) -> Callable[[Walk], Walk]:
    def registered(steps: Walk) -> Walk:
        WALKS[page] = steps
        return steps

    return registered


def answers(said: str) -> list[Any]:
    """What stands there as JSON, one after another."""
    found, decoder, at = [], json.JSONDecoder(), 0
    while at < len(said):
        value, at = decoder.raw_decode(said, at)
        found.append(value)
        at += len(said[at:]) - len(said[at:].lstrip())
    return found


@walk("guides/handlers.md")
async def handlers(page: Page) -> None:
    await page.on()
    said = (await page.on()).replace(": ", ":")
    assert '"state":"succeeded"' in said and '"result":{"greeting":"Hello, Ada!"}' in said
    assert '"status":200' in (await page.to_the_end()).replace(": ", ":")


@walk("guides/tutorial.md")
async def tutorial(page: Page) -> None:
    await page.on()
    assert "sent to user 7 in attempt 2" in await page.on()
    assert '"run_at"' in (await page.on()).replace("'", '"')
    assert "1 passed" in await page.on()


@walk("guides/calling-anything.md")
async def calling_anything(page: Page) -> None:
    assert '"state":"succeeded"' in (await page.on()).replace(": ", ":")
    await page.to_the_end()

    async def all_done() -> bool:
        tasks = [task for queue in ("crm", "web") for task in await page.api.pages("/tasks", queue=queue)]
        return [task["state"] for task in tasks] == ["succeeded"] * 4

    await poll(all_done)


@walk("guides/fan-out.md")
async def fan_out(page: Page) -> None:
    await page.on()
    await page.on()
    [closing] = await page.api.pages("/tasks", queue="closing", include="payload")
    assert closing["payload"] == {"month": "2026-11"}
    [*_, root] = await page.api.pages("/tasks", queue="months")
    made = await page.api.pages("/tasks", batch=root["id"], include="payload")
    customers = [task["payload"]["customer"] for task in made if task["queue"] == "statements"]
    assert sorted(customers) == list(range(1, 251)) and len(made) == 253
    await page.on()
    [done] = await page.api.pages("/tasks", queue="imports")
    assert (done["state"], done["result"]) == ("succeeded", {"customers": 1})


@walk("guides/pull-workers.md")
async def pull_workers(page: Page) -> None:
    await page.on()
    assert '"result":19' in await page.on()
    assert '"result":{"letters":7}' in (await page.on()).replace(": ", ":")


@walk("guides/long-tasks.md")
async def long_tasks(page: Page) -> None:
    said = await page.on()
    assert '"result":12' in said and '"progress":{"done":3,"of":3}' in said
    await page.on()
    [export] = await page.api.pages("/tasks", queue="exports")
    assert (export["state"], export["result"], export["progress"]) == ("succeeded", {"rows": 17}, 0.5)


@walk("guides/grouped-delivery.md")
async def grouped_delivery(page: Page) -> None:
    assert '"result":{"booked":7}' in (await page.on()).replace(": ", ":")
    ended = await page.api.pages("/tasks", queue="entries", include="payload")
    assert [(task["payload"]["amount"], task["state"]) for task in ended] == [
        (7, "succeeded"),
        ("x", "dead"),
        (5, "succeeded"),
    ]


@walk("guides/retries-and-dead-letters.md")
async def retries(page: Page) -> None:
    await page.on()
    said = await page.on()
    assert '"reason":"attempts_exhausted"' in said and '"payload":{"to": "ada"}' in said
    assert '"state":"succeeded"' in await page.on()
    assert '"matched":0' in await page.on()


@walk("guides/breakers.md")
async def breakers(page: Page) -> None:
    shown = answers(await page.on())[-1]
    assert (shown["state"], shown["effective_max_concurrency"]) == ("open", 0)
    assert shown["window"]["failures"] >= 5 and shown["next_probe_at"]
    assert '"succeeded":6' in await page.on()
    *_, opened, closed, _, shown = answers(await page.on())
    assert (opened["state"], opened["opened_by_hand"], closed["state"]) == ("open", True, "closed")
    assert (shown["state"], shown["parked_until"]) == ("closed", None)


@walk("runbooks/handler-suffers.md")
async def handler_suffers(page: Page) -> None:
    given = {"url": page.reader.handler_url, "breaker": {"min_calls": 1}}
    good(await page.api.put("/handlers/shop", json=given), 201)
    good(await page.api.put("/queues/orders", json={"handler": "shop"}), 201)
    await page.api.enqueue("orders")

    async def opened() -> bool:
        return bool(good(await page.api.get("/handlers/shop/health"))["state"] == "open")

    await poll(opened)
    handler, shown, tasks = answers(await page.on())
    assert handler["breaker"]["min_calls"] == 1 and shown["next_probe_at"] and tasks["items"] is not None
    tasks, shown = answers(await page.on())
    assert tasks["items"][0]["last_error"]
    assert shown["state"] == "closed"
    await page.to_the_end()
    assert good(await page.api.get("/handlers/shop"))["enabled"]


@walk("runbooks/dead-letters-and-redrive.md")
async def dead_letters(page: Page) -> None:
    good(await page.api.put("/queues/orders", json={}), 201)
    for n in range(3):
        await page.api.enqueue("orders", n)
    leased = good(await page.api.post("/queues/orders/leases", json={"max_tasks": 3}))["tasks"]
    for n, task in enumerate(leased):
        body, headers = {"error": f"no order {n}", "retryable": False}, {"sluice-lease-token": task["lease_token"]}
        good(await page.api.post(f"/tasks/{task['id']}/fail", json=body, headers=headers))
    await page.on()
    assert (await page.on()).count("no order #") == 2
    (tried,) = answers(await page.on())
    assert tried["matched"] == 3
    await page.on()
    assert good(await page.api.get("/queues/orders/stats"))["counts"]["ready"] == 3
    *_, listed = answers(await page.on())
    assert listed["items"][0]["reason"] == "order service restored" and not page.left


@walk("guides/sqs-in-front.md")
async def sqs_in_front(page: Page) -> None:
    said = await page.on()
    made, *_, tested = answers(said[said.index("{") :])  # after what curl says until the server has started
    assert made["QueueUrl"].endswith("/123456789012/orders") and tested["error"] is None
    *_, listed, source = answers(await page.on())
    (task,) = listed["items"]
    assert (task["payload"], task["headers"]) == ({"order": 7}, {"tenant": "ada"})
    assert task["idempotency_key"].startswith("sqs:arn:aws:sqs:us-east-1:123456789012:orders:")
    assert (source["kind"], source["last_error"]) == ("sqs", None)


@walk("guides/redis-streams.md")
async def redis_streams(page: Page) -> None:
    said = await page.on()
    *_, tested, listed = answers(said[said.index("{") :])
    (task,) = listed["items"]
    assert tested["error"] is None and (task["payload"], task["headers"]) == ({"order": 7}, {"tenant": "ada"})
    assert task["idempotency_key"].startswith("redis:orders:")
    said = await page.on()
    (listed,) = await poll(lambda: page.api.pages("/tasks", queue="reminders", state="succeeded"), 30)
    task = good(await page.api.get(f"/tasks/{listed['id']}"))
    assert task["result"] in said and "sluice-task-id" in said


@walk("guides/idempotency.md")
async def idempotency(page: Page) -> None:
    said = (await page.on()).lower()
    assert said.index("http/1.1 201") < said.index("http/1.1 200") < said.index("idempotent-replayed: true")
    assert len(await page.api.pages("/tasks", queue="bookings")) == 1
    said = await page.on()
    assert "unique-held: true" in said.lower() and '"version": 2' in said.rpartition("HTTP/1.1 200")[2]
    assert len(await page.api.pages("/tasks", queue="index")) == 1


@walk("guides/dead-letter-queues-and-callbacks.md")
async def callbacks(page: Page) -> None:
    said = await page.on()
    assert '"state":"dead"' in said and said.count('"payload":{"order": 7}') >= 2
    [letter] = await page.api.pages("/tasks", queue="dead-orders")
    assert letter["headers"] == {"x-shop": "berlin"} and letter["parent"]
    await page.on()

    async def told() -> list[Any]:
        return await page.api.pages("/tasks", queue="audit", include="payload")

    [done] = await poll(told, 30)
    assert (done["type"], done["payload"]["state"], done["payload"]["queue"]) == ("done", "succeeded", "orders")


@walk("guides/batches.md")
async def batches(page: Page) -> None:
    await page.on()
    assert (await page.on()).count('"status":201') == 3
    [batch] = await page.api.pages("/batches")

    async def completed() -> bool:
        return bool(good(await page.api.get(f"/batches/{batch['id']}"))["completed_at"])

    await poll(completed, 30)
    assert (await page.on()).count('"percent":100.0') == 2
    await page.on()
    [posting] = await page.api.pages("/tasks", queue="posting", include="payload")
    assert posting["payload"] == {"mailing": 7}


@walk("guides/tenants.md")
async def tenants(page: Page) -> None:
    await page.on()
    own = answers(await page.on())[-1]
    assert (own["max_concurrency"], own["granted_max_concurrency"]) == (100, 200)
    assert (await page.on()).splitlines()[3:5] == [
        "This tenant runs at most 100 tasks at once.",
        "This tenant is granted at most 200 tasks at once by an operator.",
    ]


@walk("guides/definitions.md")
async def definitions(page: Page) -> None:
    shown, faults, _ = blocks(DOCS / "guides" / "definitions.md", "text")
    shown = page.reader.with_ports(shown)
    assert await page.on() == f"{shown}{shown}Applied.\n0 to create, 0 to change, 0 to delete, 4 unchanged.\n\n"
    assert good(await page.api.get("/queues/mail"))["max_concurrency"] == 200
    file = page.reader.folder / "definitions.yaml"
    right, said = file.read_text(), ""
    for correct, wrong in (("max_concurrency: 10", "max_concurrency: 0"), ('"0 7 * * 1"', "*/5 * * * *")):
        file.write_text(right.replace(correct, wrong))
        said += (await page.reader.types("sluice plan definitions.yaml 2>&1 || true")).strip() + "\n"
    assert said == faults
    file.write_text(right)
    pruned = await page.on()
    assert pruned.count("- schedule newsletter\n") == 2
    assert (await page.api.get("/schedules/newsletter")).status_code == 404
    assert await own_limits(page.api) == {"max_concurrency": 5}
    await page.on()
    assert good(await page.api.get("/queues/mail"))["max_concurrency"] == 20


async def ledger(page: Page, name: str, count: int) -> list[dict[str, Any]]:
    """The rows of so many runs, newest first, once all of them have ended."""

    async def there() -> list[dict[str, Any]]:
        rows = [row for row in await page.api.pages(f"/schedules/{name}/history") if row["task_id"]]
        return rows if len(rows) == count and all(row["completed_at"] for row in rows) else []

    return await poll(there, 60, every_seconds=0.1)


@walk("guides/schedules.md")
async def schedules(page: Page) -> None:
    assert '"reading":"At 06:00 on Monday through Friday, Europe/Berlin time' in await page.on()
    said = await page.on()
    assert '"local":"2027-03-14T03:00:00-04:00"' in said and re.search(r"T06:00:00\+0[12]:00", said)
    said = await page.on()
    assert said.index('"paused":true') < said.index('"cause":"trigger"') < said.index('"paused":false')
    await ledger(page, "daily", 1)
    assert '{"matched":22,"started":1,"waiting":21,"passed_over":0,"skipped":0}' in await page.on()
    rows = await ledger(page, "daily", 23)
    assert {row["outcome"] for row in rows} == {"ran_ok"}
    assert min(row["nominal_at"] for row in rows) == "2026-03-02T05:00:00.000000Z"
    assert (await page.on()).count('"outcome":"ran_ok"') == 10


DAY = [f"2026-03-28T{hour:02}:00:00.000000Z" for hour in range(24)]


async def hourly(page: Page, **fields: Any) -> str:
    """A schedule, whose queue nobody works on; the runbooks speak of one named so."""
    (await page.api.put("/queues/reports", json={})).raise_for_status()
    body = {"queue": "reports", "payload": None, "cron": "0 0 1 1 *", **fields}
    return str(good(await page.api.put("/schedules/hourly", json=body), 201)["id"])


async def settle_all(page: Page) -> None:
    """As a worker that succeeds with everything it is given."""
    while tasks := good(await page.api.post("/queues/reports/leases", json={"max_tasks": 100}))["tasks"]:
        for task in tasks:
            token = {"sluice-lease-token": task["lease_token"]}
            good(await page.api.post(f"/tasks/{task['id']}/complete", json={}, headers=token))


@walk("runbooks/backfill-a-day.md")
async def backfill(page: Page) -> None:
    await hourly(page, cron="0 * * * *", end_at="2026-03-29T00:00:00Z")
    await page.on()
    empty, preview = answers(await page.on())
    assert empty["items"] == [] and len(preview["times"]) == 24
    [made] = answers(await page.on())
    assert made == {"matched": 24, "started": 24, "waiting": 0, "passed_over": 0, "skipped": 0}
    rows, failed = answers(await page.on())
    assert sorted(row["nominal_at"] for row in rows["items"]) == DAY and failed["items"] == []
    assert {(row["cause"], row["outcome"]) for row in rows["items"]} == {("backfill", "running")}
    cancelled = answers(await page.on())
    assert len(cancelled) == 24 and all(batch["cancelled_at"] for batch in cancelled)
    assert {row["outcome"] for row in await ledger(page, "hourly", 24)} == {"cancelled"}


@walk("runbooks/schedule-did-not-fire.md")
async def did_not_fire(page: Page) -> None:
    await hourly(page)
    good(await page.api.post("/queues/reports/pause"))
    good(await page.api.post("/schedules/hourly/trigger", json={}))
    good(await page.api.post("/schedules/hourly/pause"))
    await page.on()
    [why] = answers(await page.on())
    assert why["row"]["outcome"] == "running" and why["paused_at"]
    shown, preview = answers(await page.on())
    assert shown["paused_reason"] == "paused by request" and len(preview["times"]) == 5
    [history] = answers(await page.on())
    assert [row["outcome"] for row in history["items"]] == ["running"]
    [status] = answers(await page.on())
    [row] = status["schedules"]
    assert (row["schedule"], row["paused"], row["overdue_seconds"]) == ("hourly", True, 0)
    assert ("all", False) in [(replica["roles"], replica["silent"]) for replica in status["replicas"]]
    task, attempts = answers(await page.on())
    assert task["waiting_for"] == "queue_paused" and attempts["items"] == []


@walk("runbooks/stuck-task.md")
async def stuck_task(page: Page) -> None:
    good(await page.api.put("/handlers/mailer", json={"url": page.reader.handler_url}), 201)
    good(await page.api.put("/queues/mail", json={"handler": "mailer"}), 201)
    good(await page.api.post("/queues/mail/pause"))
    task = await page.api.enqueue("mail")
    await page.on()
    [why] = answers(await page.on())
    assert (why["task"], why["blockers"][0]["code"]) == (task["id"], "queue_paused")
    [why] = answers(await page.on())
    assert why["first"] == task["id"]
    assert '"path":"/queues/mail/resume"' in await page.on()
    [why] = answers(await page.on())
    assert why["verdict"] and "queue_paused" not in str(why)


@walk("runbooks/schedule-is-late.md")
async def is_late(page: Page) -> None:
    await hourly(page, overlap="buffer_one")
    for _ in range(2):
        good(await page.api.post("/schedules/hourly/trigger", json={}))
    [history] = answers(await page.on())
    assert [row["outcome"] for row in history["items"]] == ["waiting", "running"]
    assert "sluice_loop_lag_seconds" in await page.on()
    running, batch, tasks = answers(await page.on())
    assert [row["batch_id"] for row in running["items"]] == [batch["id"]] and tasks["items"] == []
    task, stats = answers(await page.on())
    assert task["waiting_for"] in ("worker", "no_worker") and stats["queue"] == "reports"


@walk("runbooks/pause-everything.md")
async def pause_everything(page: Page) -> None:
    await hourly(page, cron="every 1 second", overlap="allow_all")
    kept = await page.api.queue()
    good(await page.api.post(f"/queues/{kept}/pause"))
    await page.on()
    assert (page.reader.folder / "schedules.txt").read_text() == "hourly\n"
    assert (page.reader.folder / "queues.txt").read_text() == "reports\n"
    await page.on()
    paused_at = good(await page.api.get("/schedules/hourly"))["paused_at"]
    assert good(await page.api.get("/queues/reports"))["paused"]
    await page.on()
    over = datetime.fromisoformat(paused_at) + timedelta(seconds=2)
    await poll(lambda: datetime.now(UTC) > over)
    await page.on()
    states = {found["name"]: found["paused"] for found in await page.api.pages("/queues")}
    assert states == {"reports": False, kept: True}
    [history] = answers(await page.on())
    [row] = history["items"]
    assert row["outcome"] == "paused" and row["nominal_until"] >= paused_at
    (await page.api.delete("/schedules/hourly")).raise_for_status()


@walk("runbooks/alarms.md")
async def alarms(page: Page) -> None:
    queue = await page.api.queue()
    await page.api.enqueue(queue)
    good(await page.api.post(f"/queues/{queue}/pause"))
    assert '"code":"queue_paused"' in await page.on()


UNREACHABLE = {
    "kind": "sqs",
    "queue": "mail",
    "queue_url": "http://127.0.0.1:9/123456789012/orders",
    "region": "eu-west-1",
    "credentials": {"access_key_id": "AKIA", "secret_access_key": "none"},
}


async def in_trouble(page: Page) -> None:
    """A queue whose handler is not there, with a limit and a schedule."""
    good(await page.api.put("/handlers/mailer", json={"url": page.reader.handler_url}), 201)
    good(await page.api.put("/limits/crm", json={"max_concurrency": 10}), 201)
    later = {"backoff": {"kind": "fixed", "seconds": 600}}
    queue = {"handler": "mailer", "max_depth": 1000, "limits": ["crm"], "retry": later}
    good(await page.api.put("/queues/mail", json=queue), 201)
    hours = {"queue": "mail", "payload": 1, "cron": "0 * * * *"}
    good(await page.api.put("/schedules/nightly", json=hours), 201)
    good(await page.api.put("/sources/orders", json=UNREACHABLE), 201)
    task = await page.api.enqueue("mail")
    await page.api.until(task["id"], "scheduled")


def alert(name: str, *expected: str) -> None:
    """Walk through the runbook of an alert; its first look must show all that is expected, in this order."""

    @walk(f"runbooks/{name}.md")
    async def steps(page: Page) -> None:
        await in_trouble(page)
        await page.on()
        said, at = await page.on(), 0
        for words in expected:
            at = said.find(words, at)
            assert at >= 0, words


alert("queue-stopped", '"paused":false', '"counts"', '"items"')
alert("queue-is-not-draining", '"paused":false', '"counts"', '"items"')
alert("backlog-will-not-clear", '"per_minute"', '"retried"')
alert("handler-is-failing", '"success_share"', '"last_error":"', '"outcome":"unreachable"')
alert("tasks-are-dying", '"items"')
alert("retry-storm", '"last_error":"', '"backoff"', 'outcome="unreachable"')
alert("handler-disabled", '"disabled_reason"')
alert("queue-paused-with-work", '"paused":false', '"counts"')
alert("queue-nearly-full", '"max_depth":1000', '"counts"')
alert("limit-saturated", '"name":"crm"')
alert("leases-are-lost", '"replicas"', "sluice_leases_lost_total 0", "sluice_loop_lag_seconds")
alert("schedule-missed-a-time", '"items":[]', '"id":"nightly"', '"missed"')
alert("source-is-stuck", '"last_error"', '"ok":false', "sluice_source_failing_seconds")
alert("no-engine", '"roles":"all"', '"status":"ok"')
alert("replica-silent", '"silent":false')
alert("loop-is-lagging", "sluice_loop_lag_seconds", '"in_flight"')
alert("old-transaction", '"oldest_xmin_age_seconds"')
alert("connections-short", '"max_connections"')
alert("database-unreachable", '"status":"ok"', "sluice_database_up 1.0")
alert("enqueue-error-budget", 'route="/queues/{name}/tasks"', '"status":"ok"')


@walk("guides/monitoring.md")
async def monitoring(page: Page) -> None:
    await page.on()
    said = await page.on()
    assert 'sluice_build_info{version="' in said and "sluice_database_up 1.0" in said


def test_the_sql_of_the_runbooks_is_valid(database_url: str) -> None:
    statements = [text for page in DOCS.glob("runbooks/*.md") for text in blocks(page, "sql")]
    assert len(statements) >= 2

    async def run() -> None:
        connection = await asyncpg.connect(database_url)
        for text in statements:
            await connection.execute(text)
        await connection.close()

    asyncio.run(run())


@walk("guides/limits-and-rates.md")
async def limits_and_rates(page: Page) -> None:
    *_, task, limit = answers(await page.on())
    assert task["key"] == "customer-1"
    assert (limit["max_concurrency"], limit["rate"]["limit"]) == (20, 500)
    await page.on()
    *_, key = answers(await page.on())
    assert (key["max_concurrency"], key["overridden"]) == (50, True)
    await page.on()
    await page.on()
    paused, waiting, shown, resumed = answers(await page.on())
    assert (paused["paused"], shown["paused"], shown["waiting"], resumed["paused"]) == (True, True, 1, False)
    assert waiting["key"] == "customer-1"
    said = await page.on()
    assert "480 per 60 s, burst 20" in said and "account-7" in said


@walk("guides/audit.md")
async def audit(page: Page) -> None:
    await page.on()
    _, paused, found = answers(await page.on())
    (row,) = found["items"]
    assert paused["paused"] and (row["verb"], row["name"], row["request_id"]) == ("pause", "mail", "ticket-4711")
    (example,) = blocks(DOCS / "guides" / "audit.md", "json")
    assert json.loads(example).keys() == row.keys()
    said = await page.on()
    assert "paused: false → true" in said
    await page.to_the_end()
    assert json.loads((page.reader.folder / "audit-of-the-day.json").read_text()).keys() == {"items", "next_cursor"}


@walk("guides/agents.md")
async def agents(page: Page) -> None:
    (made,) = answers(await page.on())
    assert (made["scope"], made["payloads"]) == ("read", False)
    said = await page.on()
    assert "\n# Sluice\n" in f"\n{said}" and "/llms/guides/agents.md" in said


@walk("concepts/lifecycle.md")
async def lifecycle(page: Page) -> None:
    await page.on()
    [task] = await page.api.pages("/tasks", queue="mails", include="payload")
    assert task["payload"] == {"to": "ada"}
    refused = await page.api.post("/queues/mails/tasks", json={"payload": {"to": 5}})
    [error] = problem(refused, 422, "payload_schema_mismatch")["errors"]
    assert (
        error["pointer"] == "/payload/to" and f"`{error['detail']}`" in (DOCS / "concepts" / "lifecycle.md").read_text()
    )


@walk("../examples/handler/README.md")
async def example_of_a_handler(page: Page) -> None:
    (page.reader.folder / "examples").symlink_to(ROOT / "examples")
    assert '{"ada": 5}' in await page.on()
    [task] = await page.api.pages("/tasks", queue="bookings")
    assert task["result"] == {"account": "ada", "balance": 5}


@walk("guides/encryption.md")
async def encryption(page: Page) -> None:
    _, task = answers(await page.to_the_end())
    assert task["encrypted"] is True and task["payload"] == {"employee": 7, "salary": 5100}


async def beside_a_newsletter(page: Page) -> None:
    """A queue that a schedule fills and nothing empties."""
    good(await page.api.put("/queues/mail", json={}), 201)
    schedule = {"queue": "mail", "payload": 1, "cron": "0 7 * * *"}
    good(await page.api.put("/schedules/newsletter", json=schedule), 201)
    await page.api.enqueue("mail")


for name in ("scale-replicas", "upgrade", "database-failover"):
    walk(f"runbooks/{name}.md")(beside_a_newsletter)


@walk("runbooks/drain-a-queue.md")
async def drain_a_queue(page: Page) -> None:
    await beside_a_newsletter(page)
    await page.to_the_end()
    assert "newsletter" in "".join(page.said)
    assert good(await page.api.get("/schedules/newsletter"))["paused"]
    assert not await page.api.pages("/tasks", queue="mail", state="ready")


@walk("runbooks/restore-from-backup.md")
async def restore_from_backup(page: Page) -> None:
    await beside_a_newsletter(page)
    await page.on()
    await page.on()
    await page.on()
    assert all(queue["paused"] for queue in await page.api.pages("/queues"))
    assert all(schedule["paused"] for schedule in await page.api.pages("/schedules"))
    await page.to_the_end()
    assert not good(await page.api.get("/queues/mail"))["paused"]


@walk("guides/concurrency-tuning.md")
async def concurrency_tuning(page: Page) -> None:
    await page.to_the_end()
    assert good(await page.api.get("/queues/mail"))["max_concurrency"] == 20


@walk("guides/sizing-postgres.md")
async def sizing_postgres(page: Page) -> None:
    await page.to_the_end()


@walk("guides/troubleshooting.md")
async def troubleshooting(page: Page) -> None:
    """Every symptom ends in a command, and each of those works."""
    await page.to_the_end()
    lines = (DOCS / "guides" / "troubleshooting.md").read_text().splitlines()
    cells = [re.split(r"(?<!\\)\|", line)[-2].strip() for line in lines if line.startswith("| ")]
    ends = [cell for cell in cells if cell != "command"]
    assert len(ends) > 25
    for end in ends:
        command = re.fullmatch(r"`(.*)`", end)
        if command is not None and command[1].startswith(("curl -H", "sluice config")):
            await page.reader.types(command[1].replace("\\|", "|"))
        else:
            assert end.startswith(("`sluice keys list`", "`curl --json", "see ["))


SETTINGS = {"guides/encryption.md": {"encryption_key": base64.b64encode(bytes(32)).decode()}}


@pytest.fixture
async def page(
    request: pytest.FixtureRequest, start_replica: Callable[..., Awaitable[Replica]], tmp_path: Path
) -> AsyncIterator[Page]:
    path = DOCS / request.param
    replica = await start_replica(**SETTINGS.get(request.param, {}))
    async with reader(tmp_path, replica.url) as reading:
        reading.writes(DOCS / "guides" / "handlers.md")  # others build on its handler
        reading.writes(path)
        yield Page(reading, Api(replica.client, replica.url), blocks(path, "sh"))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", WALKS, indirect=True)
async def test_a_page_can_be_followed_from_top_to_bottom(page: Page, request: pytest.FixtureRequest) -> None:
    await WALKS[request.node.callspec.params["page"]](page)
    await page.to_the_end()


def test_every_page_with_lines_of_shell_is_walked_or_has_a_reason_not_to_be() -> None:
    pages = {str(page.relative_to(DOCS)) for folder in ("guides", "runbooks") for page in DOCS.glob(f"{folder}/*.md")}
    pages |= {str(page.relative_to(DOCS)) for page in DOCS.glob("concepts/*.md") if blocks(page, "sh")}
    pages |= {f"../{page.relative_to(ROOT)}" for page in ROOT.glob("examples/*/README.md")}
    assert pages == WALKS.keys() | NOT_WALKED.keys()
    assert not WALKS.keys() & NOT_WALKED.keys()
