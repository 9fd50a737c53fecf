"""Monthly reports: one task lists the tenants, one task per tenant renders a report, and the last one writes the summary.

    DATABASE_URL=postgres://… python reports.py seed 120     # create tables, and 120 tenants with a year of sales
    DATABASE_URL=postgres://… WEBHOOK_SECRET=whsec_… python reports.py

A schedule starts it; see definitions.yaml. A task that is delivered more than once does the same again: the same file from
the same rows, put in place atomically. Settings: DATABASE_URL, WEBHOOK_SECRET (several, separated by spaces, while a secret is
being rotated), HOST (127.0.0.1), PORT (9000), OUT (reports), PAGE (50).
"""

import asyncio
import base64
import csv
import hashlib
import hmac
import io
import json
import os
import re
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import asyncpg
import uvicorn
from fastapi import FastAPI, Request, Response

FOLLOW_UPS = "application/vnd.sluice.tasks+json"
TOLERANCE_SECONDS = 300
MAX_BODY_BYTES = 1_048_576
PAGE = int(os.environ.get("PAGE", "50"))
OUT = Path(os.environ.get("OUT", "reports"))

SEED_TENANTS = "insert into tenants select n, 'Tenant ' || n from generate_series(1, $1::int) n on conflict do nothing"
SEED_SALES = """
insert into sales
select t.id, (date_trunc('month', now()) - make_interval(months => m) + make_interval(days => (t.id * 7 + s * 3) % 28))::date,
       (array['bolts', 'nuts', 'washers'])[1 + (t.id + s) % 3], 100 * (1 + (t.id * 31 + m * 17 + s * 13) % 97)
from tenants t, generate_series(1, 12) m, generate_series(1, 20) s
where not exists (select from sales)
"""
LINES = """
select product, count(*) as sales, sum(cents)::bigint as cents from sales
where tenant = $1 and sold_on >= $2 and sold_on < $3 group by product order by product
"""
RENDERED = """
insert into reports values ($1, $2, $3, $4, $5, $6, $7)
on conflict (month, tenant) do update set (path, sales, cents, begun_at, rendered_at)
  = (excluded.path, excluded.sales, excluded.cents, excluded.begun_at, excluded.rendered_at)
"""


def month_to_report(payload: dict, scheduled_for: str) -> date:
    """The month before the nominal time, in the payload's time zone; or the month that the payload names.

    It never depends on the current time: an attempt days later, or a backfill, covers the same month.
    """
    if "month" in payload:
        return date.fromisoformat(payload["month"] + "-01")
    local = datetime.fromisoformat(scheduled_for).astimezone(ZoneInfo(payload["timezone"]))
    return (local.date().replace(day=1) - timedelta(days=1)).replace(day=1)


def following(month: date) -> date:
    return (month + timedelta(days=31)).replace(day=1)


async def list_tenants(pool: asyncpg.Pool, headers, payload: dict) -> dict:
    """One page of tenants as tasks. Sluice enqueues them in the transaction that completes this one, and calls again for `next`."""
    month = f"{month_to_report(payload, headers['sluice-scheduled-for']):%Y-%m}"
    after = int(headers.get("sluice-cursor", "0"))
    found = [
        row["id"] for row in await pool.fetch("select id from tenants where id > $1 order by id limit $2", after, PAGE)
    ]
    page = {
        "result": {"month": month, "tenants": len(found)},
        "tasks": [
            {
                "queue": "reporting-reports",
                "idempotency_key": f"tenant-{id}",
                "payload": {"month": month, "tenant": id},
                "tags": [month],
            }
            for id in found
        ],
        # The same on every page, so it is one task. It is enqueued when all reports have ended.
        "on_complete": {"queue": "reporting-summaries", "payload": {"month": month}},
    }
    if len(found) == PAGE:
        page["next"] = str(found[-1])
    return page


async def render(pool: asyncpg.Pool, headers, payload: dict) -> dict:
    begun_at = datetime.now(UTC)
    month, tenant = date.fromisoformat(payload["month"] + "-01"), payload["tenant"]
    rows = await pool.fetch(LINES, tenant, month, following(month))
    path = OUT / payload["month"] / f"tenant-{tenant}.csv"
    await asyncio.to_thread(write_csv, path, ("product", "sales", "amount"), map(csv_line, rows))
    sales, cents = sum(row["sales"] for row in rows), sum(row["cents"] for row in rows)
    await pool.execute(RENDERED, month, tenant, str(path), sales, cents, begun_at, datetime.now(UTC))
    return {"path": str(path), "sales": sales}


async def summarize(pool: asyncpg.Pool, headers, payload: dict) -> dict:
    """All reports have ended. Dead ones have no row, and are listed."""
    month = date.fromisoformat(payload["month"] + "-01")
    rows = await pool.fetch("select tenant, sales, cents from reports where month = $1 order by tenant", month)
    missing = await pool.fetch(
        "select id from tenants where not exists (select from reports where month = $1 and tenant = id) order by id",
        month,
    )
    path = OUT / payload["month"] / "summary.csv"
    lines = [(row["tenant"], row["sales"], amount(row["cents"])) for row in rows]
    lines += [(row["id"], "missing", "") for row in missing]
    await asyncio.to_thread(write_csv, path, ("tenant", "sales", "amount"), lines)
    return {"path": str(path), "reports": len(rows), "missing": len(missing), "batch": headers["sluice-batch"]}


WORK = {"reporting-lists": list_tenants, "reporting-reports": render, "reporting-summaries": summarize}


def amount(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"


def csv_line(row: asyncpg.Record) -> tuple:
    return row["product"], row["sales"], amount(row["cents"])


def write_csv(path: Path, header: tuple, lines: Iterable[tuple]) -> None:
    """Write all of the file or nothing: readers see the old file or the new one, even if two deliveries write at once."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        draft.write_text(text.getvalue(), newline="")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def signed(secrets: str, headers, body: bytes) -> bool:
    """Standard Webhooks: HMAC-SHA256 over id.timestamp.body with any of the secrets, at most five minutes old."""
    task, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not re.fullmatch("[0-9]{1,12}", timestamp) or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        return False  # anyone can send anything
    message = f"{task}.{timestamp}.".encode() + body
    keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets.split()]
    expected = [b"v1," + base64.b64encode(hmac.digest(key, message, hashlib.sha256)) for key in keys]
    given = headers.get("webhook-signature", "").encode().split()
    return any(hmac.compare_digest(one, other) for one in given for other in expected)


@asynccontextmanager
async def connected(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=1, max_size=8) as app.state.pool:
        yield


app = FastAPI(lifespan=connected, openapi_url=None)


@app.post("/")
async def handle(request: Request) -> Response:
    size = request.headers.get("content-length", "")
    if not re.fullmatch("[0-9]{1,7}", size) or int(size) > MAX_BODY_BYTES:
        return Response("at most 1 MiB, with its content-length", 413, {"connection": "close"})
    body = await request.body()
    if not signed(os.environ["WEBHOOK_SECRET"], request.headers, body):
        return Response("the signature does not match", 401)
    work = WORK.get(request.headers["sluice-queue"])
    if work is None:
        return Response("this queue's tasks are not for this handler", 422, {"sluice-retry": "no"})
    answer = await work(
        app.state.pool, request.headers, json.loads(body)
    )  # an exception becomes a 500, and Sluice tries again
    return Response(json.dumps(answer), media_type=FOLLOW_UPS if work is list_tenants else "application/json")


async def seed(tenants: int) -> None:
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    try:
        await connection.execute((Path(__file__).parent / "schema.sql").read_text())
        await connection.execute(SEED_TENANTS, tenants)
        await connection.execute(SEED_SALES)
    finally:
        await connection.close()


def main() -> None:
    if sys.argv[1:2] == ["seed"]:
        asyncio.run(seed(int(sys.argv[2])))
        return
    listening = socket.create_server((os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "9000"))))
    host, port = listening.getsockname()
    print(f"listening on http://{host}:{port}/", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main()
