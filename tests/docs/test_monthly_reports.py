"""examples/monthly_reports with rows in Postgres, three replicas as processes, and its definitions."""

import csv
import json
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import httpx2
import pytest

from app.delivery.webhook.signing import new_secret, sign
from tests.databases import create_database, drop_database, with_database
from tests.docs.example_processes import apply, example, files_in, run_example
from tests.docs.pages import ROOT, blocks
from tests.docs.shell import in_shell
from tests.sluices import SluiceProcess
from tests.support import poll
from tests.wire.api import Api, good

pytestmark = [
    pytest.mark.ci,
    pytest.mark.anyio,
    pytest.mark.skipif(shutil.which("curl") is None, reason="it is told in curl"),
]

SCRIPT = "monthly_reports/reports.py"
WITH_SDK = "monthly_reports/reports_with_sdk.py"
"""The same with sluice-client: its tasks, and so its answers to requests by hand, are its own business."""
TENANTS = 120
SECRET = new_secret()
START, DEFINE, TRIGGER = blocks(ROOT / "examples" / "monthly_reports" / "README.md", "sh")
CAP = 4


@pytest.fixture
async def books(server_url: str) -> AsyncIterator[asyncpg.Connection]:
    """The example's own database, with its tenants."""
    name = f"reports_{time.time_ns()}"
    url = await create_database(server_url, name)
    await run_example(SCRIPT, "seed", str(TENANTS), DATABASE_URL=url)
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()
    await drop_database(server_url, name)


@pytest.fixture
async def handler_url(
    request: pytest.FixtureRequest, books: asyncpg.Connection, server_url: str, tmp_path: Path
) -> AsyncIterator[str]:
    script = getattr(request, "param", SCRIPT)
    url = with_database(server_url, await books.fetchval("select current_database()"))
    out = str(tmp_path / "reports")
    async with example(script, DATABASE_URL=url, WEBHOOK_SECRET=SECRET, OUT=out) as found:
        yield found


def most_at_once(spans: list[asyncpg.Record]) -> int:
    """Of what began and ended at these instants; what ends as another begins is not beside it."""
    changes = sorted([(row["begun_at"], 1) for row in spans] + [(row["rendered_at"], -1) for row in spans])
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


@pytest.mark.timeout(180)
@pytest.mark.parametrize("handler_url", [SCRIPT, WITH_SDK], indirect=True)
async def test_every_tenant_has_its_report_once_and_the_summary_comes_after_all(
    start_sluice: Callable[..., Awaitable[SluiceProcess]],
    books: asyncpg.Connection,
    handler_url: str,
    tmp_path: Path,
) -> None:
    replicas = [await start_sluice() for _ in range(3)]
    api = Api(replicas[0].client, replicas[0].url)
    await apply(tmp_path, DEFINE, api, handler_url, SECRET)
    schedule = good(await api.get("/schedules/reporting-monthly"))
    assert all(time["local"][8:19] == "01T06:00:00" for time in schedule["times"])

    await in_shell(tmp_path, TRIGGER, S=replicas[1].url)
    run = await ended_run(api)
    assert (run["outcome"], run["cause"]) == ("ran_ok", "trigger")
    local = datetime.fromisoformat(run["nominal_at"]).astimezone(ZoneInfo("Europe/Berlin"))
    month = f"{local.replace(day=1) - timedelta(days=1):%Y-%m}"

    [summary] = await summaries(api)
    assert summary["result"] == {
        "path": str(tmp_path / "reports" / month / "summary.csv"),
        "reports": TENANTS,
        "missing": 0,
        "batch": run["batch_id"],
    }
    expected = [f"{month}/summary.csv", *(f"{month}/tenant-{n}.csv" for n in range(1, TENANTS + 1))]
    assert files_in(tmp_path / "reports") == sorted(expected)
    await each_was_rendered_once(api, run, books)
    await sums_agree(books, tmp_path / "reports" / month)
    tasks = await api.pages("/tasks", batch=run["batch_id"])
    listed = [task for task in tasks if task["queue"] == "reporting-lists"]
    assert sorted(task["result"]["tenants"] for task in listed) == [20, 50, 50]
    assert max(task["ended_at"] for task in tasks) <= summary["created_at"]
    assert run["completed_at"] <= summary["ended_at"]


async def ended_run(api: Api) -> dict[str, Any]:
    async def there() -> dict[str, Any] | None:
        [row] = await api.pages("/schedules/reporting-monthly/history")
        return row if row["completed_at"] else None

    return await poll(there, 60, every_seconds=0.05)


async def summaries(api: Api) -> list[dict[str, Any]]:
    async def there() -> list[dict[str, Any]]:
        tasks = await api.pages("/tasks", queue="reporting-summaries")
        return tasks if tasks and all(task["ended_at"] for task in tasks) else []

    return await poll(there, 30, every_seconds=0.05)


async def each_was_rendered_once(api: Api, run: dict[str, Any], books: asyncpg.Connection) -> None:
    """By what Sluice has on record and by what the example has; the cap, by the example's."""
    tasks = await api.pages("/tasks", batch=run["batch_id"], queue="reporting-reports", include="payload")
    assert sorted(task["payload"]["tenant"] for task in tasks) == list(range(1, TENANTS + 1))
    assert {(task["state"], task["attempt"]) for task in tasks} == {("succeeded", 1)}
    rows = await books.fetch("select tenant, begun_at, rendered_at from reports order by tenant")
    assert [row["tenant"] for row in rows] == list(range(1, TENANTS + 1))
    assert 2 <= most_at_once(rows) <= CAP


async def sums_agree(books: asyncpg.Connection, folder: Path) -> None:
    """What the files say adds up to what was sold in that month."""
    sold = await books.fetchval("select sum(cents) from sales where to_char(sold_on, 'YYYY-MM') = $1", folder.name)
    files = files_in(folder)
    assert sum(cents_in(folder / name) for name in files if name != "summary.csv") == sold
    assert cents_in(folder / "summary.csv") == sold


def cents_in(path: Path) -> int:
    with path.open(newline="") as file:
        return sum(round(float(line["amount"]) * 100) for line in csv.DictReader(file))


async def deliver(url: str, queue: str, payload: dict[str, Any], *, secret: str = SECRET) -> httpx2.Response:
    body, timestamp = json.dumps(payload).encode(), int(time.time())
    headers = {
        "webhook-id": "task-1",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign((secret,), "task-1", timestamp, body),
        "sluice-queue": queue,
        "sluice-batch": "batch-1",
        "sluice-scheduled-for": "2026-02-28T17:00:00Z",
    }
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as client:
        return await client.post(url, content=body, headers=headers)


async def test_a_report_delivered_twice_is_the_same_file(
    books: asyncpg.Connection, handler_url: str, tmp_path: Path
) -> None:
    month = await books.fetchval("select to_char(max(sold_on), 'YYYY-MM') from sales")
    path = tmp_path / "reports" / month / "tenant-7.csv"
    contents = set()
    for _ in range(2):
        answer = await deliver(handler_url, "reporting-reports", {"month": month, "tenant": 7})
        assert answer.json() == {"path": str(path), "sales": 20}
        contents.add(path.read_bytes())
    assert len(contents) == 1 and files_in(tmp_path / "reports") == [f"{month}/tenant-7.csv"]
    assert await books.fetchval("select count(*) from reports") == 1


async def test_the_summary_names_the_tenants_without_a_report(
    books: asyncpg.Connection, handler_url: str, tmp_path: Path
) -> None:
    month = await books.fetchval("select to_char(max(sold_on), 'YYYY-MM') from sales")
    await deliver(handler_url, "reporting-reports", {"month": month, "tenant": 2})
    answer = await deliver(handler_url, "reporting-summaries", {"month": month})
    assert (answer.json()["reports"], answer.json()["missing"]) == (1, TENANTS - 1)
    lines = (tmp_path / "reports" / month / "summary.csv").read_text().splitlines()
    assert lines[1].startswith("2,20,") and lines[2:] == [f"{n},missing," for n in (1, *range(3, TENANTS + 1))]


async def test_the_month_is_the_one_before_by_the_clocks_of_its_zone(handler_url: str) -> None:
    """17:00 UTC on 28 February is 06:00 on 1 March in Auckland, and still February in Berlin."""
    auckland = (await deliver(handler_url, "reporting-lists", {"timezone": "Pacific/Auckland"})).json()
    assert auckland["result"] == {"month": "2026-02", "tenants": 50} and auckland["next"] == "50"
    berlin = (await deliver(handler_url, "reporting-lists", {"timezone": "Europe/Berlin"})).json()
    assert berlin["on_complete"] == {"queue": "reporting-summaries", "payload": {"month": "2026-01"}}


async def test_it_takes_what_is_signed_and_what_is_for_it(handler_url: str) -> None:
    payload = {"month": "2026-02", "tenant": 1}
    assert (await deliver(handler_url, "reporting-reports", payload, secret=new_secret())).status_code == 401
    other = await deliver(handler_url, "mail", payload)
    assert (other.status_code, other.headers["sluice-retry"]) == (422, "no")
    assert (await deliver(handler_url, "reporting-reports", {"month": "2026-02", "tenant": 1_000})).status_code == 500
