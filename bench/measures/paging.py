"""What the pages for people cost: how soon each is there with many tasks, and what many who leave one open cost."""

import asyncio
import contextlib
import time
from typing import Any

import httpx2

from bench.figures import quantile
from bench.ground import Ground
from bench.measures.looking import FILL, VIEWERS, used
from bench.subject import Subject

ASKED = 5
QUEUES = 20
# Half of the tasks have not ended; one in ten is dead, one in twenty is scheduled. A fifth of them is one batch.
TASKS = (
    "insert into sluice.batches (id, tenant_id, queue_id, sealed, created_at) "
    "select md5('batch')::uuid, q.tenant_id, q.id, true, now() from sluice.queues q where q.name = 'page-1'",
    "insert into sluice.tasks (id, tenant_id, queue_id, state, priority, run_at, created_at, payload, options, batch_id) "
    "select {id}, q.tenant_id, q.id, case when n % 10 = 0 then 2 else 0 end, 0, "
    "now() + case when n % 10 = 0 then '1 hour' else '0 s' end::interval, now(), '1', "
    "jsonb_build_object('type', 'kind-' || n % 7, 'tags', jsonb_build_array('tag-' || n % 5)), "
    "case when q.name = 'page-1' then md5('batch')::uuid end "
    "from generate_series(1, {count} / 2) n join sluice.queues q on q.name = 'page-' || least(n % 25, 20)",
    "insert into sluice.task_history (id, kept_until, tenant_id, queue_id, handler_id, state, reason, ended_at, priority, run_at, "
    "created_at, payload, options, attempt, claims, last_error) "
    "select {id}, now() + (n % 20 + 1) * interval '1 day', q.tenant_id, q.id, 0, case when n % 5 = 0 then 4 else 3 end, "
    "case when n % 5 = 0 then 'attempts_exhausted' end, now() - n * interval '80 ms', 0, now(), now(), '1', "
    "jsonb_build_object('type', 'kind-' || n % 7), 1, 1, case when n % 5 = 0 then 'the handler answered ' || n % 600 end "
    "from generate_series({count} / 2 + 1, {count}) n join sluice.queues q on q.name = 'page-' || least(n % 25, 20)",
)
_AT = "lpad(to_hex((extract(epoch from now()) * 1000)::bigint - {count} + n), 12, '0')"
_ID = f"({_AT} || '7' || substr(md5(n::text), 1, 19))::uuid"
PAGES = {
    "overview": "",
    "queues": "/queues",
    "queue": "/queues/page-20",
    "queue edit": "/queues/page-20/edit",
    "tasks": "/tasks",
    "tasks of a queue": "/tasks?queue=page-20",
    "dead tasks": "/tasks?state=dead",
    "tasks of a type": "/tasks?type=kind-3",
    "tasks that none matches": "/tasks?tag=none",
    "a task": "/tasks/{task}",
    "a task of a large batch": "/tasks/{child}",
    "batches": "/batches",
    "a large batch": "/batches/{batch}",
    "schedules": "/schedules",
    "handlers": "/handlers",
    "handler": "/handlers/bench",
    "limits": "/limits",
    "actions": "/actions",
    "audit": "/audit",
    "keys": "/keys",
    "replicas": "/replicas",
}


async def pages(ground: Ground) -> dict[str, Any]:
    """Each page, with as many tasks as `ready` says; and one page of many queues that many leave open."""
    async with ground.subject() as subject:
        found: dict[str, Any] = {"tasks": ground.size.ready, "pages": await _timed(subject, ground.size.ready)}
    slowest = max(found["pages"], key=lambda name: found["pages"][name]["p50_ms"])
    found |= {"slowest": slowest, "slowest_ms": found["pages"][slowest]["p50_ms"]}
    found["median_ms"] = quantile(sorted(page["p50_ms"] for page in found["pages"].values()), 0.5)
    found["open"] = await _open(ground)
    return found


async def _timed(subject: Subject, count: int) -> dict[str, dict[str, float]]:
    await subject.queues([f"page-{number}" for number in range(1, QUEUES + 1)], "bench")
    await subject.close("bench")
    for statement in TASKS:
        await subject.database.execute(statement.format(id=_ID.format(count=count), count=count))
    await subject.database.execute("vacuum (analyze)")
    await subject.database.execute("checkpoint")
    ids = {
        "task": await subject.database.fetchval("select id from sluice.task_history limit 1"),
        "child": await subject.database.fetchval("select id from sluice.tasks where batch_id is not null limit 1"),
        "batch": await subject.database.fetchval("select md5('batch')::uuid"),
    }
    found = {}
    for name, path in PAGES.items():
        took = []
        for _ in range(ASKED + 1):
            begun = time.perf_counter()
            answer = await subject.first.client.get("/ui" + path.format(**ids))
            took.append(1000 * (time.perf_counter() - begun))
            answer.raise_for_status()
        first, *rest = took
        found[name] = {"p50_ms": quantile(sorted(rest), 0.5), "first_ms": first, "kb": len(answer.content) / 1024}
    return found


async def _open(ground: Ground) -> dict[str, Any]:
    """What many viewers of an overview that changes all the time use, beyond what is used while nobody looks."""
    size = ground.size
    async with ground.subject() as subject:
        await subject.queues([f"look-{number}" for number in range(size.queues)], "bench")
        await subject.close("bench")
        for statement in FILL:
            await subject.database.execute(statement)
        await subject.database.execute("vacuum (analyze)")
        seconds = size.idle_seconds
        async with _changing(subject):
            idle = await used(ground, subject, seconds)
            async with _viewers(subject) as renewed:
                await asyncio.sleep(3.0)
                before = sum(renewed)
                watched = await used(ground, subject, max(5.0, seconds))
                renewals = sum(renewed) - before
        if not renewals:
            ground.problems.append("no page was renewed")
    shares = {name: watched[name] - idle[name] for name in watched}
    return {"queues": size.queues, "viewers": VIEWERS, "renewals": renewals, "share": sum(shares.values())} | shares


@contextlib.asynccontextmanager
async def _changing(subject: Subject) -> Any:
    """Change the overview as often as it is looked at."""

    async def change() -> None:
        for number in range(10**6):
            await subject.ask("POST", f"/queues/look-{number % 7}/tasks", {"payload": 1, "delay_seconds": 3600})
            await asyncio.sleep(1.0)

    changing = asyncio.ensure_future(change())
    try:
        yield
    finally:
        changing.cancel()
        await asyncio.gather(changing, return_exceptions=True)


@contextlib.asynccontextmanager
async def _viewers(subject: Subject) -> Any:
    """Leave the overview open as browsers do: wait for its event, then renew. Yield how often each has renewed it."""
    renewed = [0] * VIEWERS
    limits = httpx2.Limits(max_connections=2 * VIEWERS)
    async with httpx2.AsyncClient(base_url=subject.first.url, timeout=60, trust_env=False, limits=limits) as client:
        client.cookies.update((await client.get("/ui")).cookies)

        async def watch(number: int) -> None:
            async with client.stream("GET", "/ui/events") as events:
                async for part in events.aiter_raw():
                    if b"event: overview" in part:
                        (await client.get("/ui", headers={"hx-request": "true"})).raise_for_status()
                        renewed[number] += 1

        watching = [asyncio.ensure_future(watch(number)) for number in range(VIEWERS)]
        try:
            yield renewed
        finally:
            for one in watching:
                one.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
