"""How fast stored tasks are delivered and settled: beside a bare loop, under limits, over many queues."""

import statistics
from datetime import datetime
from typing import Any

import asyncpg

from bench.ground import HANDLER, QUEUE, Ground, Way
from bench.subject import Subject

QUEUE_LIMIT = 64
TENANT_LIMIT = 128
BACKLOG_MAX_SECONDS = 3.0
"""The backlog is bounded if it stays below so much work, or at least does not grow."""

_MOST_AT_ONCE = """
with attempts as (
  select last_started_at as started_at, last_ended_at as ended_at from {schema}.task_history where last_started_at >= $1
  union all
  select started_at, ended_at from {schema}.attempt_history where started_at >= $1)
select coalesce(max(running), 0) from (
  select sum(change) over (order by at, change) as running
  from (select started_at as at, 1 as change from attempts union all select ended_at, -1 from attempts) changes) counted
"""


async def end_to_end(ground: Ground) -> dict[str, Any]:
    """All tasks wait; from opening the handler until all have been delivered and settled."""
    ways: list[Way] = []
    async with ground.subject() as subject:

        async def ours() -> float:
            ways.append(await ground.whole_way(subject, ground.size.tasks))
            return ways[-1].per_second

        found = await ground.rounds(ground.bare_way, ours, ground.size.rounds)
    counted = ways[-ground.size.rounds :]
    cost = {name: statistics.median(getattr(way, name) for way in counted) for name in Way._fields}
    return found | {"cost": cost}


async def limits(ground: Ground) -> dict[str, Any]:
    """The same with a limit on the queue and one on the tenant, beside none: with one replica, and with several; and what the bare
    loop delivers with so few tasks at once."""
    async with ground.subject() as subject:
        one = await _limited(ground, subject, ground.size.few_rounds)
        await subject.add_replicas(ground.size.replicas - 1)
        several = await _limited(ground, subject, ground.size.rounds)
    bare = await ground.rounds(
        ground.bare_way, lambda: ground.bare_way(QUEUE_LIMIT), ground.size.rounds, ("unlimited", "limited")
    )
    return {
        "one": one,
        "several": several,
        "bare": bare,
        "replicas": ground.size.replicas,
        "queue": QUEUE_LIMIT,
        "tenant": TENANT_LIMIT,
    }


async def _limited(ground: Ground, subject: Subject, rounds: int) -> dict[str, Any]:
    most = 0

    async def limited() -> float:
        nonlocal most
        await _limit(subject, QUEUE_LIMIT, TENANT_LIMIT)
        begun: datetime = await subject.database.fetchval("select clock_timestamp()")
        rate = await ground.way(subject)
        most = max(most, await most_at_once(subject.database, begun))
        return rate

    async def unlimited() -> float:
        await _limit(subject, None, None)
        return await ground.way(subject)

    found = await ground.rounds(unlimited, limited, rounds, ("unlimited", "limited"))
    if most > QUEUE_LIMIT:
        ground.problems.append(f"{most} attempts at once under a limit of {QUEUE_LIMIT}")
    return found | {"most_at_once": most}


async def most_at_once(database: asyncpg.Connection, since: datetime, schema: str = "sluice") -> int:
    """How many of the attempts that started since then ran at once, by their records. Where one ends as another starts, the
    end comes first: a slot may be taken in the moment in which it is freed."""
    return int(await database.fetchval(_MOST_AT_ONCE.format(schema=schema), since))


async def _limit(subject: Subject, queue: int | None, tenant: int | None) -> None:
    await subject.queue(QUEUE, HANDLER, max_concurrency=queue)
    await subject.ask("PUT", "/limits", {"max_concurrency": tenant})


async def many_queues(ground: Ground) -> dict[str, Any]:
    """The same number of tasks in many queues, beside one queue: all stored beforehand, and arriving in turns meanwhile."""
    names = [f"{QUEUE}-{n}" for n in range(ground.size.queues)]
    async with ground.subject(path="/stamp") as subject:
        await subject.queues(names, HANDLER)

        async def flow(queues: int) -> float:
            return float((await ground.paced(subject, ground.size.load_seconds, queues=queues))["per_second"])

        pair = ("one", "many")
        stored = await ground.rounds(
            lambda: ground.way(subject), lambda: ground.way(subject, names), ground.size.rounds, pair
        )
        await subject.open(HANDLER)
        arriving = await ground.rounds(lambda: flow(0), lambda: flow(len(names)), ground.size.rounds, pair)
    return {"queues": len(names), "stored": stored, "arriving": arriving}


async def both(ground: Ground) -> dict[str, Any]:
    """Tasks arrive at the rate at which they can be delivered; beside a bare loop that inserts and delivers at once."""
    async with ground.subject(path="/stamp") as subject:
        found = await _both(ground, subject)
        stored = await ground.bare_way()
    return found | {"bare_stored": stored, "ratio_to_stored": found["per_second"] / stored}


async def both_apart(ground: Ground) -> dict[str, Any]:
    """The same with two replicas, one that takes the tasks and one that delivers them. Bare does both in one process."""
    async with ground.subject(role="api", path="/stamp") as subject:
        await subject.add_replicas(1, role="engine")
        return await _both(ground, subject)


async def _both(ground: Ground, subject: Subject) -> dict[str, Any]:
    seconds = ground.size.sustained_seconds
    bare = [await ground.bare_both(seconds / 6)]
    found = await ground.paced(subject, seconds)
    bare.append(await ground.bare_both(seconds / 6))
    inserting = sum(bare) / 2
    first, _, last = found["backlog_thirds"]
    if found["backlog_max"] > found["per_second"] * BACKLOG_MAX_SECONDS and last > first:
        ground.problems.append(f"the backlog grew: {found['backlog_thirds']}")
    return found | {"bare": inserting, "bare_rounds": bare, "ratio": found["per_second"] / inserting}
