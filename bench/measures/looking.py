"""What it costs to look: the overview of many queues, asked for once and watched by many."""

import asyncio
import contextlib
import time
from typing import Any

import httpx2

from bench.figures import quantile
from bench.ground import Ground
from bench.processes import cpu_seconds
from bench.subject import Subject

VIEWERS = 20
STALE_SECONDS = 2.2
"""After this a look is taken again."""
ASKED = 20
ASKED_AGAIN_SECONDS = 2.0
WATCHED_SECONDS = 10.0
FEW = 5
# Every queue has tasks in every state, and minutes whose histograms are as full as those of queues in use.
FILL = (
    "insert into sluice.tasks (id, tenant_id, queue_id, state, priority, run_at, created_at, payload, options) "
    "select gen_random_uuid(), q.tenant_id, q.id, case when n < 8 then 0 else 2 end, 0, "
    "now() + case when n < 8 then '0 s' else '1 hour' end::interval, now(), '1', null "
    "from sluice.queues q, generate_series(1, 10) n where q.name like 'look-%'",
    "insert into sluice.task_history (id, kept_until, tenant_id, queue_id, handler_id, state, ended_at, priority, run_at, "
    "created_at, payload, attempt, claims) "
    "select gen_random_uuid(), now() + make_interval(days => n), q.tenant_id, q.id, 0, 3 + n % 2, now(), 0, now(), now(), '1', 1, "
    "1 from sluice.queues q, generate_series(1, 30) n where q.name like 'look-%'",
    "insert into sluice.queue_minutes (queue_id, minute, enqueued, started, succeeded, wait, run) "
    "select q.id, date_trunc('minute', now()) - n * interval '1 minute', 60, 60, 60, "
    "array(select (random() * 9)::bigint from generate_series(1, 40)), "
    "array(select (random() * 9)::bigint from generate_series(1, 50)) "
    "from sluice.queues q, generate_series(-1, 8) n where q.name like 'look-%'",
)


async def overview(ground: Ground) -> dict[str, Any]:
    """A replica with many queues: what it and its database use while nobody looks and while viewers do, and how it answers."""
    size = ground.size
    names = [f"look-{number}" for number in range(size.queues)]
    async with ground.subject() as subject:
        await subject.queues(names, "bench")
        await subject.close("bench")
        for statement in FILL:
            await subject.database.execute(statement)
        await subject.database.execute("vacuum (analyze)")
        await _asked(subject, FEW, 0.0)
        idle = await used(ground, subject, min(WATCHED_SECONDS, size.idle_seconds))
        async with _viewers(subject) as told:
            await asyncio.sleep(STALE_SECONDS)
            before = list(told)
            watched = await used(ground, subject, max(3 * STALE_SECONDS, min(WATCHED_SECONDS, size.idle_seconds)))
            overviews = min(after - before_ for after, before_ in zip(told, before, strict=True))
        async with _asking(subject):
            polled = await used(ground, subject, max(3 * STALE_SECONDS, min(WATCHED_SECONDS, size.idle_seconds)))
        found = {
            "queues": len(names),
            "viewers": VIEWERS,
            "idle": idle,
            "watched": watched,
            "share": watched["service"] + watched["postgres"] - idle["service"] - idle["postgres"],
            "overviews": overviews,
            "polled": polled,
            "polled_share": polled["service"] + polled["postgres"] - idle["service"] - idle["postgres"],
            "kept": await _asked(subject, ASKED, 0.0),
            "taken": await _asked(subject, FEW, STALE_SECONDS),
        }
    if overviews < 1:
        ground.problems.append("a viewer was sent no overview")
    return found


async def used(ground: Ground, subject: Subject, seconds: float) -> dict[str, float]:
    """How much of a core each uses."""
    pids = {"service": subject.child.process.pid, "postgres": ground.postgres.pid or 0}
    before, begun = {name: cpu_seconds(pid) for name, pid in pids.items()}, time.monotonic()
    await asyncio.sleep(seconds)
    took = time.monotonic() - begun
    return {name: (cpu_seconds(pid) - before[name]) / took for name, pid in pids.items()}


async def _asked(subject: Subject, count: int, apart: float) -> dict[str, float]:
    """How long an overview takes to arrive."""
    took = []
    for _ in range(count):
        await asyncio.sleep(apart)
        begun = time.perf_counter()
        answer = await subject.first.client.get("/overview")
        took.append(1000 * (time.perf_counter() - begun))
        answer.raise_for_status()
    return {"p50_ms": quantile(sorted(took), 0.5), "max_ms": max(took), "kb": len(answer.content) / 1024}


@contextlib.asynccontextmanager
async def _asking(subject: Subject) -> Any:
    """Let many ask for the overview again and again."""
    limits = httpx2.Limits(max_connections=VIEWERS)
    async with httpx2.AsyncClient(base_url=subject.first.url, timeout=60, trust_env=False, limits=limits) as client:

        async def ask(number: int) -> None:
            await asyncio.sleep(number * ASKED_AGAIN_SECONDS / VIEWERS)
            while True:
                (await client.get("/overview")).raise_for_status()
                await asyncio.sleep(ASKED_AGAIN_SECONDS)

        asking = [asyncio.ensure_future(ask(number)) for number in range(VIEWERS)]
        try:
            yield
        finally:
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)


@contextlib.asynccontextmanager
async def _viewers(subject: Subject) -> Any:
    """Watch events by many; yield how many overviews each has been sent."""
    told = [0] * VIEWERS
    limits = httpx2.Limits(max_connections=VIEWERS)
    async with httpx2.AsyncClient(base_url=subject.first.url, timeout=60, trust_env=False, limits=limits) as client:

        async def watch(number: int) -> None:
            async with client.stream("GET", "/events") as answer:
                async for part in answer.aiter_raw():
                    told[number] += part.count(b"event: overview")

        watching = [asyncio.ensure_future(watch(number)) for number in range(VIEWERS)]
        try:
            yield told
        finally:
            for one in watching:
                one.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
