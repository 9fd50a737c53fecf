"""`make screenshots`: the pictures of the README, of a service that `make seed` has filled.

A service that has run for seconds has no hour to show, so the counts of the minutes before are drawn here, the same each time.
"""

import asyncio
import math
import random
from pathlib import Path
from typing import Any

import asyncpg
from playwright.async_api import async_playwright

from app.cli import seed_data, seed_handler
from app.cli.client import Client
from app.domain.histograms import bucket_of, trimmed
from app.settings import LOOPBACK, Settings
from tests.databases import SharedServer, create_database
from tests.sluices import replica_with

CHROMIUM = "/usr/bin/chromium"
PICTURES = Path(__file__).parents[2] / "docs/pictures"
MINUTES = 62
QUEUES = {"mail": (40, 0.35, 0.4), "invoices": (14, 0.6, 0.2), "sync": (6, 0.9, 0.8), "thumbnails": (24, 0.15, 1.4)}
"""Tasks per minute, and typical seconds of waiting and of running."""


def main() -> None:
    server = SharedServer()
    try:
        asyncio.run(_all(server.start()))
    finally:
        server.stop()


async def _all(server_url: str) -> None:
    url = await create_database(server_url, "screenshots")
    given = {
        "database_url": url,
        "port": 0,
        "drain_grace_seconds": 0,
        "egress_allow": LOOPBACK,
        "ui_label": "production:purple",
    }
    async with replica_with(Settings.model_validate(given)) as replica:
        await asyncio.to_thread(_seed, replica.url)
        await _draw_the_hour_before(url)
        await _take(replica.url, await _paths(replica.client))


def _seed(url: str) -> None:
    with Client(url, None, True) as client, seed_handler.serving() as handler_url:
        seed_data.define(client, handler_url)
        for _, step in seed_data.STEPS:
            step(client)
        seed_data.settle(client)


async def _paths(client: Any) -> dict[str, str]:
    [task] = (await client.get("/tasks?queue=invoices&state=dead&reason=attempts_exhausted&limit=1")).json()["items"]
    return {
        "overview": "",
        "queue": "/queues/thumbnails",
        "task": f"/tasks/{task['id']}",
        "schedule": "/schedules/hourly-sync",
    }


async def _draw_the_hour_before(url: str) -> None:
    random.seed(7)
    connection = await asyncpg.connect(url)
    try:
        ids = {row["name"]: row["id"] for row in await connection.fetch("select id, name from sluice.queues")}
        [now] = await connection.fetchrow("select date_trunc('minute', clock_timestamp())")
        for name, (rate, wait, run) in QUEUES.items():
            for before in range(MINUTES, 0, -1):
                row = _minute(rate * (1.2 + math.sin(before / 9)), wait, run)
                await connection.execute(
                    "insert into sluice.queue_minutes (queue_id, minute, enqueued, started, succeeded, dead, retried, wait,"
                    " run, ready, running)"
                    " values ($1, $2::timestamptz - make_interval(mins => $3), $4, $5, $6, $7, $8, $9, $10, $11, $12)"
                    " on conflict (queue_id, minute) do nothing",
                    ids[name], now, before, *row,
                )  # fmt: skip
        await connection.execute(
            "insert into sluice.queue_minutes (queue_id, minute) select 0, $1::timestamptz - make_interval(mins => n)"
            " from generate_series(0, $2) n on conflict do nothing", now, MINUTES,
        )  # fmt: skip
        await connection.execute("delete from sluice.tenant_minutes")
        await connection.execute(
            "insert into sluice.tenant_minutes select tenant_id, minute, sum(enqueued), sum(started), sum(succeeded),"
            " sum(dead), sum(cancelled), sum(retried), '{}', '{}', sum(ready), sum(running) from sluice.queue_minutes m"
            " join sluice.queues q on q.id = m.queue_id where m.minute < $1 group by 1, 2", now,
        )  # fmt: skip
    finally:
        await connection.close()


def _minute(rate: float, wait: float, run: float) -> list[Any]:
    started = max(0, round(random.gauss(rate, rate / 6)))
    retried, dead = sum(random.random() < 0.04 for _ in range(started)), int(random.random() < 0.12)
    waits, runs = [0] * 91, [0] * 91
    for _ in range(started):
        waits[bucket_of(random.lognormvariate(math.log(wait), 0.6))] += 1
        runs[bucket_of(random.lognormvariate(math.log(run), 0.5))] += 1
    ready, running = round(rate * wait * 1.5 + random.random() * 4), round(rate * run / 6 + random.random())
    succeeded = max(0, started - retried - dead)
    enqueued = max(0, round(random.gauss(rate, rate / 5)))
    return [enqueued, started, succeeded, dead, retried, trimmed(waits), trimmed(runs), ready, running]


async def _take(url: str, paths: dict[str, str]) -> None:
    PICTURES.mkdir(exist_ok=True)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            context = await browser.new_context(
                color_scheme=scheme,
                viewport={"width": 1280, "height": 900},
                device_scale_factor=1,
            )
            page = await context.new_page()
            for name, path in paths.items():
                await page.goto(f"{url}/ui{path}", wait_until="load")
                await page.evaluate("document.fonts.ready")
                await page.screenshot(path=PICTURES / f"{name}-{scheme}.png")
            await context.close()
        await browser.close()


if __name__ == "__main__":
    main()
