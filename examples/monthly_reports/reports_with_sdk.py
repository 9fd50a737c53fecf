"""Monthly reports with sluice-client: the same tasks as in reports.py, without the code that speaks to Sluice.

    DATABASE_URL=postgres://… WEBHOOK_SECRET=whsec_… python reports_with_sdk.py

It takes the same settings and definitions. Queries and files are those of reports.py.
"""

import os
import socket
from datetime import UTC, date, datetime

import uvicorn
from fastapi import FastAPI
from reports import LINES, OUT, PAGE, RENDERED, amount, connected, csv_line, following, month_to_report, write_csv

from sluice_client import Context, Sluice

sluice = Sluice()
app = FastAPI(lifespan=connected, openapi_url=None)
app.mount("/", sluice.asgi(secrets=os.environ["WEBHOOK_SECRET"].split()))


@sluice.task(queue="reporting-lists")
async def list_tenants(timezone: str = "UTC", month: str | None = None, *, ctx: Context) -> dict[str, str | int]:
    """One page of tenants as tasks. `month` is given by hand; otherwise it comes from the nominal time."""
    month = (
        month
        or f"{month_to_report({'timezone': timezone}, (ctx.scheduled_for or datetime.now(UTC)).isoformat()):%Y-%m}"
    )
    found = await app.state.pool.fetch(
        "select id from tenants where id > $1 order by id limit $2", int(ctx.cursor or 0), PAGE
    )
    for row in found:
        ctx.follow_up(render.options(idempotency_key=f"tenant-{row['id']}", tags=[month]).call(month, row["id"]))
    ctx.on_complete(summarize.call(month))
    if len(found) == PAGE:
        ctx.next(str(found[-1]["id"]))
    return {"month": month, "tenants": len(found)}


@sluice.task(queue="reporting-reports")
async def render(month: str, tenant: int) -> dict[str, str | int]:
    begun_at, first = datetime.now(UTC), date.fromisoformat(f"{month}-01")
    rows = await app.state.pool.fetch(LINES, tenant, first, following(first))
    path = OUT / month / f"tenant-{tenant}.csv"
    write_csv(path, ("product", "sales", "amount"), map(csv_line, rows))
    sales, cents = sum(row["sales"] for row in rows), sum(row["cents"] for row in rows)
    await app.state.pool.execute(RENDERED, first, tenant, str(path), sales, cents, begun_at, datetime.now(UTC))
    return {"path": str(path), "sales": sales}


@sluice.task(queue="reporting-summaries")
async def summarize(month: str, *, ctx: Context) -> dict[str, str | int | None]:
    """All reports have ended. Dead ones have no row, and are listed."""
    first = date.fromisoformat(f"{month}-01")
    rows = await app.state.pool.fetch(
        "select id, sales, cents from tenants left join reports on tenant = id and month = $1 order by sales is null, id",
        first,
    )
    lines = [
        (row["id"], "missing", "") if row["sales"] is None else (row["id"], row["sales"], amount(row["cents"]))
        for row in rows
    ]
    path = OUT / month / "summary.csv"
    write_csv(path, ("tenant", "sales", "amount"), lines)
    missing = sum(row["sales"] is None for row in rows)
    return {"path": str(path), "reports": len(rows) - missing, "missing": missing, "batch": ctx.batch}


def main() -> None:
    listening = socket.create_server((os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "9000"))))
    host, port = listening.getsockname()
    print(f"listening on http://{host}:{port}/", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main()
