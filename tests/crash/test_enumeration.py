"""An enumeration in pages, its replicas killed and started again all the while, ends with each unit exactly once.

SLUICE_TEST_UNITS units instead of 5,000 are the long form; results.md has what it came to.
"""

import asyncio
import itertools
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from tests.handlers import Handler, Received, Reply
from tests.sluices import SluiceProcess
from tests.support import poll
from tests.wire.api import Api
from tests.wire.test_followups import answer, unit

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

UNITS = int(os.environ.get("SLUICE_TEST_UNITS", "5000"))
PAGE = 1000
OVERLAP = 50
KILLS = 2 + UNITS // 5000
REPLICAS = 3
LEASE_SECONDS = "5"
SECONDS = 60 + UNITS / 100

StartSluice = Callable[..., Awaitable[SluiceProcess]]


class Listing:
    """A handler that lists units in pages that overlap, works at units, and takes the sum."""

    def __init__(self, units: str) -> None:
        self.units = units
        self.pages: Counter[int] = Counter()
        self.calls: Counter[int] = Counter()
        self.sums: list[str] = []
        self.lost = asyncio.Event()
        """Set once a replica was killed while it waited for the second page."""

    def answer(self, request: Received) -> Reply:
        if request.json == "sum":
            self.sums.append(request.task)
            return Reply()
        if request.json != "list":
            self.calls[request.json] += 1
            return Reply()
        at = int(request.headers.get("sluice-cursor", "0"))
        self.pages[at] += 1
        until = min(at + PAGE, UNITS)
        page: dict[str, Any] = {"tasks": [unit(self.units, str(n), n) for n in range(max(0, at - OVERLAP), until)]}
        if until < UNITS:
            page["next"] = str(until)
        reply = answer(on_complete={"queue": self.units, "payload": "sum"}, **page)
        return Reply(200, reply.headers, reply.body, until=self.lost) if at == PAGE else reply


async def holds_some(rows: "asyncpg.Connection[Any]", process: SluiceProcess, queue: str) -> bool:
    sql = (
        "select exists (select from sluice.tasks t join sluice.queues q on q.id = t.queue_id"
        " where t.state = 1 and t.last_replica = $1 and q.name = $2)"
    )
    return bool(await rows.fetchval(sql, process.events("ready")[0]["replica"], queue))


async def kill_holder(
    rows: "asyncpg.Connection[Any]",
    start_sluice: StartSluice,
    running: list[SluiceProcess],
    queue: str,
    listing: Listing,
) -> bool:
    """kill -9 a replica that is calling the handler for this queue, and start another in its place; False when all is done."""

    async def holder() -> int | None:
        if listing.sums:
            return -1
        for place, process in enumerate(running):
            if await holds_some(rows, process, queue):
                return place + 1
        return None

    place = await poll(holder, SECONDS)
    assert place is not None
    if place < 0:
        return False
    doomed = running.pop(place - 1)
    await doomed.kill()
    running.append(await start_sluice(SLUICE_LEASE_SECONDS=LEASE_SECONDS))
    return True


@pytest.mark.timeout(SECONDS * 2)
async def test_an_enumeration_whose_replicas_are_killed_ends_with_each_unit_exactly_once(
    start_sluice: StartSluice, handler: Handler, rows: "asyncpg.Connection[Any]"
) -> None:
    running = list(await asyncio.gather(*(start_sluice(SLUICE_LEASE_SECONDS=LEASE_SECONDS) for _ in range(REPLICAS))))
    api = Api(running[0].client, running[0].url)
    lister, units = await api.queue_to(handler.url + "/list"), await api.queue_to(handler.url + "/unit")
    listing = Listing(units)
    handler.script(listing.answer)
    began = time.monotonic()
    root = await api.enqueue(lister, "list")
    await poll(lambda: listing.pages[PAGE], SECONDS)
    kills = int(await kill_holder(rows, start_sluice, running, lister, listing))
    listing.lost.set()
    while kills < KILLS:
        due = UNITS * kills // (KILLS + 1)
        await poll(lambda due=due: len(listing.calls) >= due, SECONDS)  # type: ignore[misc]
        if not await kill_holder(rows, start_sluice, running, units, listing):
            break  # a start took as long as all the rest
        kills += 1
    assert kills >= 2

    async def all_ended() -> bool:
        return bool(listing.sums) and not await rows.fetchval("select count(*) from sluice.tasks")

    await poll(all_ended, SECONDS, every_seconds=0.1)
    seconds = time.monotonic() - began
    attempts = await rows.fetchval("select sum(claims) from sluice.task_history")
    print(  # the figures of results.md
        f"units={UNITS} seconds={seconds:.1f} kills={kills} attempts={attempts} unit_calls={listing.calls.total()}"
        f" page_calls={listing.pages.total()} pages={len(listing.pages)} sums={len(listing.sums)}"
    )
    await check(rows, root["id"], units)
    assert sorted(listing.calls) == list(range(UNITS)) and listing.pages[PAGE] >= 2
    assert len(set(listing.sums)) == 1


async def check(rows: "asyncpg.Connection[Any]", root: str, units: str) -> None:
    pages = -(-UNITS // PAGE)
    found = await rows.fetchrow(
        "select count(*) as rows, count(distinct t.idempotency_key) as keys, count(distinct t.payload) as payloads,"
        " count(*) filter (where t.state = 3) as succeeded, count(*) filter (where t.batch_id = $2) as members"
        " from sluice.task_history t join sluice.queues q on q.id = t.queue_id where q.name = $1 and t.completes is null",
        units,
        root,
    )
    assert found is not None and tuple(found) == (UNITS,) * 5
    batch = await rows.fetchrow("select total, succeeded, dead, cancelled from sluice.batches where id = $1", root)
    assert batch is not None and tuple(batch) == (UNITS + pages, UNITS + pages, 0, 0)
    completions = await rows.fetch("select id from sluice.task_history where completes = $1 and state = 3", root)
    assert len(completions) == 1
    every = await rows.fetchval("select count(*) from sluice.task_history")
    assert every == UNITS + pages + 1
    assert await rows.fetchval("select count(*) from sluice.batch_deltas") == 0
    numbers = await rows.fetch("select task_id, number from sluice.attempt_history")
    assert len(numbers) == len(set(map(tuple, numbers))), list(itertools.islice(numbers, 3))
