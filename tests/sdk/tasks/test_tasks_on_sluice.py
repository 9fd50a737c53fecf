"""Tasks against a real Sluice, in both forms: dispatched, leased and run, waited for, cancelled, in bulk and in batches."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from app.settings import Settings
from app.store import migrations
from sluice_client import Conflict, DispatchIncomplete, NotFound, Sluice, SyncSluice, TaskFailed
from sluice_client.tasks import paging
from tests.databases import create_database, drop_database
from tests.sluices import Replica, replica_with
from tests.support import poll

pytestmark = [pytest.mark.anyio, pytest.mark.ci, pytest.mark.parametrize("form", [Sluice, SyncSluice])]


@pytest.fixture(scope="module")
async def replica(server_url: str, anyio_backend: object) -> AsyncIterator[Replica]:
    name = f"sluice_test_{uuid4().hex}"
    url = await create_database(server_url, name)
    await migrations.migrate(url)
    settings = Settings.model_validate({"database_url": url, "port": 0, "drain_grace_seconds": 0})
    async with replica_with(settings) as replica:
        yield replica
    await drop_database(server_url, name)


@pytest.fixture
async def sluice(form: Any, replica: Replica) -> AsyncIterator[Any]:
    sluice = form(replica.url)
    yield sluice
    await (sluice.aclose() if form is Sluice else asyncio.to_thread(sluice.close))


@pytest.fixture
async def queue(sluice: Any) -> str:
    name = f"q-{uuid4().hex[:8]}"
    await do(sluice.queues.put, name, max_depth=10_000)
    return name


@pytest.fixture
def task(sluice: Any, queue: str) -> Any:
    @sluice.task(queue=queue, tries=2, unique="{n}", timeout="30s")  # type: ignore[untyped-decorator]
    def double(n: int, words: list[str] | None = None) -> list[int]:
        return [n, n]

    return double


async def do(method: Any, *arguments: Any, **named: Any) -> Any:
    if inspect.iscoroutinefunction(method):
        return await method(*arguments, **named)
    return await asyncio.to_thread(method, *arguments, **named)


async def run(sluice: Any, task: Any, queue: str) -> None:
    """Do what a worker does with one task."""
    [leased] = (await do(sluice.leases.take, queue, wait_seconds=10))["tasks"]
    definition = sluice.registry.find(leased["type"])
    result = definition.encode(definition.call(definition.arguments(leased["payload"]), None))
    await do(sluice.leases.complete, leased["id"], lease_token=leased["lease_token"], result=result)


async def test_a_task_is_dispatched_run_and_waited_for(sluice: Any, queue: str, task: Any) -> None:
    ref = await do(task.dispatch, 2**70, ["ä", "\U0001f600"])
    assert (await do(task.dispatch, 2**70)).created is False  # its unique key is held
    shown = await do(ref.status)
    assert (shown["type"], shown["payload"], shown["max_attempts"], shown["timeout_seconds"]) == (
        "double", {"n": 2**70, "words": ["ä", "\U0001f600"]}, 2, 30,
    )  # fmt: skip
    assert (await do(ref.why))["verdict"]
    waiting = asyncio.create_task(do(ref.wait, "30s"))
    await run(sluice, task, queue)
    assert await waiting == [2**70, 2**70]
    with pytest.raises(Conflict):
        await do(ref.cancel)


async def test_a_cancelled_task_fails_who_waits_for_it(sluice: Any, task: Any) -> None:
    ref = await do(task.dispatch_after, "1h", 1)
    assert (await do(ref.status))["state"] == "scheduled"
    await do(ref.cancel)
    with pytest.raises(TaskFailed, match="is cancelled, requested"):
        await do(ref.wait, "30s")
    with pytest.raises(NotFound):
        await do(task.ref(str(uuid4())).wait)


async def test_the_same_calls_dispatched_again_are_the_same_tasks(
    sluice: Any, queue: str, task: Any, form: Any
) -> None:
    calls = [task.options(unique=None, idempotency_key=f"k-{n}").call(n) for n in range(paging.PAGE_TASKS + 10)]
    first = await do(sluice.dispatch_many, calls)
    again = await do(sluice.dispatch_many, calls)
    assert [ref.id for ref in first] == [ref.id for ref in again]
    assert all(ref.created for ref in first) and not any(ref.created for ref in again)
    await do(sluice.queues.put, queue, max_depth=paging.PAGE_TASKS + 11)
    with pytest.raises(DispatchIncomplete, match=r"1 calls are enqueued; 2 were refused \(queue_full"):
        await do(sluice.dispatch_many, [task.call(-n) for n in range(1, 4)])


async def test_a_batch_is_sealed_and_what_follows_it_has_its_type(
    sluice: Any, queue: str, task: Any, form: Any
) -> None:
    then = f"{queue}-then"
    await do(sluice.queues.put, then)
    after = task.options(queue=then).call(9)
    if form is Sluice:
        async with sluice.batch(on_complete=after) as batch:
            await batch.add_many([task.call(1), task.call(2)])
            ref = await batch.add(task.call(3))
    else:

        def fill() -> Any:
            with sluice.batch(on_complete=after) as batch:
                batch.add_many([task.call(1), task.call(2)])
                return batch, batch.add(task.call(3))

        batch, ref = await asyncio.to_thread(fill)
    for _ in range(3):
        await run(sluice, task, queue)
    assert await do(ref.wait, "30s") == [3, 3]
    await run(sluice, task, then)  # routed by its type

    async def completed() -> Any:
        shown = await do(batch.status)
        return shown if shown["completed_at"] else None

    shown = await poll(completed)
    assert (shown["total"], shown["sealed"], shown["counts"]["succeeded"]) == (3, True, 3)
