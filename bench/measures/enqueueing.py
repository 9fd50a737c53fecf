"""How fast tasks are enqueued over HTTP into a queue that delivers nothing."""

from typing import Any

from bench.ground import QUEUE, Ground
from bench.processes import Child
from bench.subject import BULK

CONNECTIONS = 64


async def single(ground: Ground) -> dict[str, Any]:
    """One POST a task over 64 connections, each answered after its commit; beside a bare route that inserts in groups."""
    bare, at = await ground.child("bench.ceiling", "enqueue", ground.database("bare"))
    async with ground.subject() as subject:
        await subject.pause(QUEUE)
        found = await ground.rounds(
            lambda: _load(ground, at["url"], CONNECTIONS),
            lambda: _load(ground, subject.tasks_url(QUEUE), CONNECTIONS),
            ground.size.rounds,
        )
    await bare.stop()
    await ground.bare.execute("truncate bare")
    return found


async def bulk(ground: Ground) -> dict[str, Any]:
    """Batches of 1,000 tasks, by one client that waits for each answer, and by two; beside inserts without HTTP."""
    bare, _ = await ground.child("bench.ceiling", "insert", ground.database("bare"))

    async def inserts() -> float:
        bare.tell(str(ground.size.load_seconds))
        said = await bare.heard("inserted", ground.size.load_seconds + 20)
        return float(said["tasks"] / said["seconds"])

    async with ground.subject() as subject:
        await subject.pause(QUEUE)
        url = f"{subject.tasks_url(QUEUE)}/bulk"
        one = await ground.rounds(inserts, lambda: _load(ground, url, 1, BULK), ground.size.few_rounds)
        two = await ground.rounds(inserts, lambda: _load(ground, url, 2, BULK), ground.size.rounds)
    await bare.stop()
    await ground.bare.execute("truncate bare")
    return {"one": one, "two": two}


async def _load(ground: Ground, url: str, connections: int, tasks_a_request: int = 0) -> float:
    """Tasks/s."""
    load = await Child.python(
        "bench.loadgen",
        *(url, "--connections", str(connections), "--seconds", str(ground.size.load_seconds)),
        *("--bulk", str(tasks_a_request)),
        output=ground.directory / "loadgen.log",
    )
    said = await load.heard("loaded", ground.size.load_seconds + 20)
    await load.stop()
    if said["errors"] or said["broken"]:
        ground.problems.append(f"{said['errors']} errors, {said['broken']} broken at {url}: {said['first_error']}")
    return float(said["per_second"] * max(tasks_a_request, 1))
