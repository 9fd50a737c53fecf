"""Every night: list the customers page by page, write a statement for each, and close the month when all are written."""

import os

from sluice_client import Context, Sluice

CUSTOMERS, PAGE = 250, 100
sluice = Sluice()
app = sluice.asgi(secrets=os.environ["WEBHOOK_SECRET"].split())  # for uvicorn, as it stands


@sluice.task(queue="nightly")
async def list_customers(*, ctx: Context) -> None:
    after = int(ctx.cursor or 0)
    for customer in range(after + 1, min(after + PAGE, CUSTOMERS) + 1):
        ctx.follow_up(write_statement.call(customer))
    ctx.on_complete(close_month.call())
    if after + PAGE < CUSTOMERS:
        ctx.next(str(after + PAGE))


@sluice.task(queue="statements")
async def write_statement(customer: int) -> dict[str, int]:
    return {"written": customer}


@sluice.task(queue="closing")
async def close_month(*, ctx: Context) -> dict[str, str | None]:
    return {"closed": ctx.batch}


sluice.schedule("nightly", list_customers.call(), cron="0 2 * * *")
