"""Tasks that lead to others, the same in memory and on a service: follow-ups, continuations, batches."""

import pytest

from sluice_client import Conflict, Context
from tests.sdk.contract.stages import Stage

pytestmark = pytest.mark.anyio


async def test_follow_ups_are_enqueued_with_the_end_of_their_task(stage: Stage) -> None:
    queue = await stage.new_queue()
    written: list[int] = []

    @stage.sluice.task(queue=queue)
    async def write(customer: int) -> None:
        written.append(customer)

    @stage.sluice.task(queue=queue)
    async def write_all(*, ctx: Context) -> int:
        for customer in (1, 2, 3):
            ctx.follow_up(write.call(customer))
        return 3

    root = await write_all.dispatch()
    [view] = await stage.settled(root)
    assert (view["result"], view["batch"], view["parent"]) == (3, root.id, None)
    await stage.completed(root.id)
    assert sorted(written) == [1, 2, 3]
    batch = await stage.sluice.batches.get(root.id)
    assert (batch["total"], batch["counts"]["succeeded"], batch["percent"], batch["sealed"]) == (4, 4, 100, True)


async def test_a_failed_attempt_enqueues_none_of_its_follow_ups(stage: Stage) -> None:
    queue = await stage.new_queue()
    written: list[int] = []

    @stage.sluice.task(queue=queue)
    async def write(attempt: int) -> None:
        written.append(attempt)

    @stage.sluice.task(queue=queue, backoff=[0])
    async def write_later(*, ctx: Context) -> None:
        ctx.follow_up(write.call(ctx.attempt))
        if ctx.attempt == 1:
            raise ConnectionError("no answer")

    root = await write_later.dispatch()
    await stage.settled(root)
    await stage.completed(root.id)
    assert written == [2]


async def test_a_continuation_gets_the_cursor_and_the_payload(stage: Stage) -> None:
    queue = await stage.new_queue()
    pages: list[tuple[str, str | None]] = []

    @stage.sluice.task(queue=queue, unique="{name}", on_duplicate="replace")
    async def walk(name: str, *, ctx: Context) -> None:
        pages.append((name, ctx.cursor))
        if len(pages) < 3:
            ctx.next(f"page {len(pages)}")

    root = await walk.dispatch("ada")
    await stage.settled(root)
    await stage.completed(root.id)
    assert pages == [("ada", None), ("ada", "page 1"), ("ada", "page 2")]


async def test_what_closes_a_fan_out_runs_once_and_last(stage: Stage) -> None:
    queue, closing = await stage.new_queue(), await stage.new_queue()
    ran: list[str] = []

    @stage.sluice.task(queue=queue)
    async def one(name: str) -> None:
        ran.append(name)

    @stage.sluice.task(queue=closing)
    async def close(month: str, *, ctx: Context) -> None:
        ran.append(f"closed {month} of {ctx.batch}")

    @stage.sluice.task(queue=queue)
    async def all_of_them(*, ctx: Context) -> None:
        for name in ("a", "b") if ctx.cursor is None else ("c",):
            ctx.follow_up(one.options(idempotency_key=name).call(name))
        ctx.on_complete(close.call("2026-11"))
        if ctx.cursor is None:
            ctx.next("c")

    root = await all_of_them.dispatch()
    await stage.settled(root)
    [completion] = (await stage.completed(root.id))["on_complete"]
    [view] = await stage.settled(completion["task"])
    assert (view["batch"], view["parent"], view["queue"]) == (None, None, closing)
    assert sorted(ran[:3]) == ["a", "b", "c"] and ran[3:] == [f"closed 2026-11 of {root.id}"]


async def test_a_batch_is_sealed_on_exit_and_completes_when_all_have_ended(stage: Stage) -> None:
    queue, closing = await stage.new_queue(), await stage.new_queue()

    @stage.sluice.task(queue=queue, tries=1)
    async def letter(to: str) -> None:
        if to == "nobody":
            raise ConnectionError("no such person")

    @stage.sluice.task(queue=closing)
    async def post(mailing: int, *, ctx: Context) -> str | None:
        return ctx.batch

    async with stage.sluice.batch(on_complete=post.call(7)) as batch:
        await batch.add(letter.call("ada"))
        await batch.add_many([letter.call("bob"), letter.call("nobody")])
        assert batch.id is not None
    found = await stage.sluice.batches.get(batch.id)
    assert (found["sealed"], found["total"], found["counts"]["ready"], found["percent"]) == (True, 3, 3, 0)
    assert (found["completed_at"], found["on_complete"]) == (None, [{"queue": closing, "task": None}])
    with pytest.raises(Conflict) as refused:
        await stage.sluice.batches.add(batch.id, tasks=[{"payload": 1}])
    assert refused.value.code == "batch_sealed"

    ended = await stage.completed(batch.id)
    assert (ended["counts"]["succeeded"], ended["counts"]["dead"], ended["percent"]) == (2, 1, 100)
    [completion] = ended["on_complete"]
    [view] = await stage.settled(completion["task"])
    assert view["result"] == batch.id


async def test_a_batch_that_is_cancelled_still_completes(stage: Stage) -> None:
    queue, closing = await stage.new_queue(), await stage.new_queue()

    @stage.sluice.task(queue=queue)
    async def letter(to: str) -> None: ...

    @stage.sluice.task(queue=closing)
    async def post() -> None: ...

    async with stage.sluice.batch(on_complete=post.call()) as batch:
        await batch.add_many([letter.options(after="1h").call("ada"), letter.call("bob")])
    assert batch.id is not None
    found = await stage.sluice.batches.cancel(batch.id)
    assert found["cancelled_at"] is not None and found["cancel_reason"] == "requested"
    ended = await stage.completed(batch.id)
    assert ended["counts"]["cancelled"] == 2
    [completion] = ended["on_complete"]
    [view] = await stage.settled(completion["task"])
    assert view["state"] == "succeeded"


async def test_pages_that_name_the_same_key_enqueue_one_task(stage: Stage) -> None:
    queue = await stage.new_queue()
    written: list[str] = []

    @stage.sluice.task(queue=queue)
    async def write(name: str) -> None:
        written.append(name)

    @stage.sluice.task(queue=queue)
    async def pages(*, ctx: Context) -> None:
        for name in ("a", "b") if ctx.cursor is None else ("b", "c"):
            ctx.follow_up(write.options(idempotency_key=name).call(name))
        if ctx.cursor is None:
            ctx.next("b")

    root = await pages.dispatch()
    await stage.settled(root)
    batch = await stage.completed(root.id)
    assert sorted(written) == ["a", "b", "c"] and batch["total"] == 5


async def test_an_open_batch_does_not_complete_though_all_of_its_tasks_have_ended(stage: Stage) -> None:
    queue, closing = await stage.new_queue(), await stage.new_queue()

    @stage.sluice.task(queue=queue)
    async def letter(to: str) -> None: ...

    @stage.sluice.task(queue=closing)
    async def post() -> None: ...

    batch = stage.sluice.batch(on_complete=post.call())
    ref = await batch.add(letter.call("ada"))
    await stage.settled(ref)
    found = await batch.status()
    assert (found["sealed"], found["completed_at"], found["on_complete"][0]["task"]) == (False, None, None)
    await batch.seal()
    await stage.completed(found["id"])


async def test_a_task_that_is_retried_later_does_not_close_its_batch_again(stage: Stage) -> None:
    queue, closing = await stage.new_queue(), await stage.new_queue()
    works: list[bool] = []
    closed: list[str | None] = []

    @stage.sluice.task(queue=queue, tries=1)
    async def letter(to: str) -> None:
        if not works:
            raise ConnectionError("no answer")

    @stage.sluice.task(queue=closing)
    async def post(*, ctx: Context) -> None:
        closed.append(ctx.batch)

    async with stage.sluice.batch(on_complete=post.call()) as batch:
        ref = await batch.add(letter.call("ada"))
    assert batch.id is not None
    first = await stage.completed(batch.id)
    await stage.settled(first["on_complete"][0]["task"])
    works.append(True)
    await stage.sluice.tasks.retry(ref.id)
    [view] = await stage.settled(ref)
    again = await batch.status()
    assert view["state"] == "succeeded" and again["counts"]["succeeded"] == 1
    assert (again["completed_at"], again["on_complete"]) == (first["completed_at"], first["on_complete"])
    assert closed == [batch.id]
