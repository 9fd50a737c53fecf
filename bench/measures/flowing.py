"""What flow control costs, and whether it is exact: tasks with keys, a named limit, a rate.

Queues without any of these are what all other measures have.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from bench import filling
from bench.figures import milliseconds, paired, quantile
from bench.ground import HANDLER, QUEUE, Ground, Way, costs
from bench.measures.delivering import most_at_once
from bench.statements import finding_claims_ms
from bench.subject import Subject

KEYED, BLOCKED, RATED = "bench-keyed", "bench-blocked", "bench-rated"
NEIGHBOURS, OF_NEIGHBOURS = "bench-neighbours", 5
"""A queue, and how many tasks of each of its keys run at once."""
BIG, OTHER = "big", "other"
SHARED, OF_SHARED = "shared", 64
RATE, BURST = 500, 50
"""Per second; the burst is the one that a rate has by default."""
PARKED_SECONDS = 30.0
SPENT_SECONDS, SPARE_SECONDS = 1.0, 0.5
"""After the first start, for spending what the burst allows; and until the first start, and after the last that counts."""
ROUNDING = 0.01
"""Units of a rate: instants are kept in microseconds."""

_PARKED = """
select count(*) from sluice.flows f join sluice.queues q on q.id = f.queue_id where q.name = $1 and f.parked_on is not null
"""
_STARTS = """
select last_started_at from sluice.task_history where last_started_at >= $1
union all
select started_at from sluice.attempt_history where started_at >= $1
order by 1
"""


async def keys(ground: Ground) -> dict[str, Any]:
    """End to end with a few and with many keys, beside tasks without; then single tasks of one key, beside another one with
    very many tasks, and behind many keys that are blocked."""
    size = ground.size
    async with ground.subject(path="/stamp") as subject:
        await subject.queue(KEYED, HANDLER)
        if size.warmed:
            await ground.way(subject)
            await ground.whole_way(subject, size.fewer_tasks, [KEYED], min(size.keys))
        counts = ("few", "some", "many")
        ways = {name: await _beside_plain(ground, subject, keys) for name, keys in zip(counts, size.keys, strict=True)}
        blocked = await _behind_blocked(ground, subject)
        neighbour = await _beside_neighbour(ground, subject)
    return ways | {"blocked": blocked, "neighbour": neighbour}


async def _beside_plain(ground: Ground, subject: Subject, keys: int) -> dict[str, Any]:
    """Of each key at least one task. So many that a round takes long need no second one."""
    tasks = max(ground.size.fewer_tasks, keys)
    plain: list[Way] = []
    keyed: list[Way] = []
    for number in range(1 if keys > ground.size.fewer_tasks else ground.size.few_rounds):
        sides = [(plain, QUEUE, 0), (keyed, KEYED, keys)]
        for into, queue, those in sides if number % 2 == 0 else reversed(sides):
            into.append(await ground.whole_way(subject, tasks, [queue], those))
    rates = paired([way.per_second for way in plain], [way.per_second for way in keyed], ("plain", "keyed"))
    cost = {f"{name}_cost": costs(ways) for name, ways in (("plain", plain), ("keyed", keyed))}
    return {"keys": keys, "tasks": tasks, **rates, **cost}


async def _beside_neighbour(ground: Ground, subject: Subject) -> dict[str, Any]:
    """Single tasks of one key: into an idle queue, and while another key's tasks wait and run, as many as that key may."""
    await subject.queue(NEIGHBOURS, HANDLER, key={"max_concurrency": OF_NEIGHBOURS})
    idle = await _one_by_one(ground, subject, NEIGHBOURS)
    await subject.close(HANDLER)
    await filling.ready_tasks(subject, ground.size.ready, NEIGHBOURS, BIG)
    await subject.open(HANDLER)
    begun = time.monotonic()
    beside = await _one_by_one(ground, subject, NEIGHBOURS)
    took = time.monotonic() - begun
    left = await subject.database.fetchval(
        "select count(*) from sluice.tasks t join sluice.queues q on q.id = t.queue_id where q.name = $1", NEIGHBOURS
    )
    await subject.close(HANDLER)
    if left == 0:
        ground.problems.append("the other key's tasks did not last")
    return {
        "waiting": ground.size.ready,
        "idle": idle,
        "beside": beside,
        "ratio": beside["p50_ms"] / idle["p50_ms"],
        "per_second": (ground.size.ready + 1 - left) / took,
    }


async def _behind_blocked(ground: Ground, subject: Subject) -> dict[str, Any]:
    """What the server says that claims of single tasks take while many keys are blocked, each by a rate of its own. The first
    task of each uses that up."""
    count = ground.size.blocked_keys
    await subject.queue(BLOCKED, HANDLER, key={"rate": {"limit": 1, "period_seconds": 86_400}})
    await subject.ask("PUT", f"/queues/{BLOCKED}/keys/{OTHER}", {"rate": {"limit": 1_000}})
    await subject.preload([BLOCKED], 2 * count, count)
    deadline = time.monotonic() + PARKED_SECONDS
    while (parked := await subject.database.fetchval(_PARKED, BLOCKED)) < count and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    if parked != count:
        ground.problems.append(f"{parked} of {count} keys are blocked")
    await subject.settle_down()
    log = ground.statements
    async with log.on():
        delays = await _one_by_one(ground, subject, BLOCKED)
        claims = finding_claims_ms(log.taken(await subject.database.fetchval("select current_database()")))
    return {
        "keys": count,
        "p50_ms": quantile(claims, 0.50),
        "p99_ms": quantile(claims, 0.99),
        "claims": len(claims),
        "start_delay": delays,
    }


async def _one_by_one(ground: Ground, subject: Subject, queue: str) -> dict[str, float]:
    delays = await subject.start_delays(queue, ground.size.few_delays, ground.reports, OTHER)
    ground.expect(ground.size.few_delays, len(delays), f"one at a time in {queue}")
    return milliseconds(delays)


async def exact(ground: Ground) -> dict[str, Any]:
    """Several replicas under a named limit of two queues, and then under the rate of one."""
    async with ground.subject() as subject:
        await subject.add_replicas(ground.size.replicas - 1)
        named = await _named(ground, subject)
        rate = await _rate(ground, subject)
    return {"replicas": ground.size.replicas, "named": named, "rate": rate}


async def _named(ground: Ground, subject: Subject) -> dict[str, Any]:
    """Two queues under one named limit, beside two without."""
    free, named = ["bench-1", "bench-2"], ["bench-named-1", "bench-named-2"]
    await subject.ask("PUT", f"/limits/{SHARED}", {"max_concurrency": OF_SHARED})
    for queue in free:
        await subject.queue(queue, HANDLER)
    for queue in named:
        await subject.queue(queue, HANDLER, limits=[SHARED])
    most = 0

    async def limited() -> float:
        nonlocal most
        begun: datetime = await subject.database.fetchval("select clock_timestamp()")
        per_second = await ground.way(subject, named)
        most = max(most, await most_at_once(subject.database, begun))
        return per_second

    found = await ground.rounds(
        lambda: ground.way(subject, free), limited, ground.size.few_rounds, ("unlimited", "limited")
    )
    if most > OF_SHARED:
        ground.problems.append(f"{most} attempts at once under a named limit of {OF_SHARED}")
    return found | {"most_at_once": most}


async def _rate(ground: Ground, subject: Subject) -> dict[str, Any]:
    """How many of many tasks start, and whether any window has too many."""
    seconds = ground.size.rate_seconds
    await subject.queue(RATED, HANDLER, rate={"limit": RATE})
    await subject.close(HANDLER)
    await subject.preload([RATED], int(RATE * (seconds + 3)))
    await subject.settle_down()
    await ground.reports.take()
    begun: datetime = await subject.database.fetchval("select clock_timestamp()")
    await subject.open(HANDLER)
    await asyncio.sleep(SPENT_SECONDS + seconds + SPARE_SECONDS)
    await subject.close(HANDLER)
    while await subject.database.fetchval("select exists(select from sluice.tasks where lease_token is not null)"):
        await asyncio.sleep(0.05)
    starts = [row[0] for row in await subject.database.fetch(_STARTS, begun)]
    ground.expect(len(starts), (await ground.reports.take())["count"], "under a rate")
    beyond = most_beyond(starts, RATE)
    if beyond > BURST + ROUNDING:
        ground.problems.append(f"{beyond:.2f} starts beyond {RATE}/s in some window, with a burst of {BURST}")
    per_second = _per_second(starts, seconds)
    off = abs(per_second / RATE - 1)
    return {"seconds": seconds, "per_second": per_second, "off": off, "most_beyond": round(beyond, 2)}


def most_beyond(starts: Sequence[datetime], per_second: float) -> float:
    """The largest excess, over all windows, of the starts in it over `per_second` times its length: the highest level of a
    leaky bucket. `starts` are in ascending order."""
    level = most = 0.0
    last = starts[0] if starts else None
    for at in starts:
        assert last is not None
        level = max(0.0, level - (at - last).total_seconds() * per_second) + 1
        most, last = max(most, level), at
    return most


def _per_second(starts: Sequence[datetime], seconds: float) -> float:
    """Over so many seconds, once the burst has been spent."""
    if not starts:
        return 0.0
    begin = starts[0] + timedelta(seconds=SPENT_SECONDS)
    end = begin + timedelta(seconds=seconds)
    return sum(begin <= at < end for at in starts) / seconds
