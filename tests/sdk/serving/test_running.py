"""What one run of a task makes of everything a function can do."""

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from sluice_client.context import Context, Delivery
from sluice_client.outcomes import Failed, Fatal, Outcome, Retry, RetryAfter, Skip, Skipped, Succeeded
from sluice_client.serving import blocking
from sluice_client.serving.running import run
from sluice_client.serving.threads import Threads
from sluice_client.tasks.functions import FunctionDefinition

pytestmark = pytest.mark.anyio


class Watched:
    """Controls that remember what they were asked."""

    def __init__(self) -> None:
        self.cancelled = False
        self.asked: list[tuple[str, object]] = []

    def progress(self, value: object) -> None:
        self.asked.append(("progress", value))

    def hold(self, seconds: float) -> None:
        self.asked.append(("hold", seconds))


def started(
    function: Callable[..., Any], payload: object = None, controls: Watched | None = None, **fields: Any
) -> asyncio.Task[Outcome]:
    definition: FunctionDefinition[Any] = FunctionDefinition(function, {"queue": "q"})
    delivery = Delivery("id-1", "q", definition.name, fields.pop("attempt", 1), 3, payload or {}, **fields)
    return asyncio.create_task(run(definition, delivery, controls or Watched()))


async def raises(error: BaseException) -> Outcome:
    async def task() -> None:
        raise error

    return await started(task)


async def test_what_a_function_raises_decides_what_comes_next() -> None:
    assert await raises(Retry("locked", after=30)) == RetryAfter("locked", 30)
    assert await raises(Retry()) == RetryAfter("Retry")
    assert await raises(Fatal("bad address")) == Failed("bad address")
    assert await raises(Skip("sold")) == Skipped("sold")
    assert await raises(KeyError("name")) == RetryAfter("KeyError: 'name'")
    assert await raises(asyncio.CancelledError()) == RetryAfter("CancelledError"), "by itself, not by us"
    long = await raises(ValueError("x\x00y" * 2000))
    assert isinstance(long, RetryAfter) and len(long.error) == 2000 and "\x00" not in long.error


class Mute(Exception):
    def __str__(self) -> str:
        raise LookupError


async def test_a_reason_may_be_an_exception_and_an_exception_may_have_no_text() -> None:
    assert await raises(Fatal(ValueError("bad address"))) == Failed("ValueError: bad address")
    assert await raises(Retry(KeyError("name"), after=30)) == RetryAfter("KeyError: 'name'", 30)
    assert await raises(Skip(None)) == Skipped("None")  # type: ignore[arg-type]
    assert await raises(Mute()) == RetryAfter("Mute: its text cannot be made: LookupError")


async def test_what_would_end_a_coroutine_fails_the_task() -> None:
    def stops() -> None:
        raise StopIteration

    def closes() -> None:
        raise GeneratorExit

    for run_in_thread, name in ((stops, "StopIteration"), (closes, "GeneratorExit")):
        outcome = await asyncio.wait_for(started(run_in_thread), 10)
        assert outcome == RetryAfter(f"RuntimeError: the function raised {name}")
    assert await raises(GeneratorExit()) == RetryAfter("RuntimeError: the function raised GeneratorExit")


async def test_a_retry_cannot_be_asked_for_in_the_past() -> None:
    with pytest.raises(ValueError, match="at least 0"):
        Retry(after=-1)


async def test_a_payload_or_a_result_that_does_not_fit_is_final() -> None:
    ran = []

    async def double(n: int) -> int:
        ran.append(n)
        return n * 2

    async def lies() -> int:
        return "two"  # type: ignore[return-value]

    assert await started(double, {"n": 2}) == Succeeded(4)
    outcome = await started(double, {"n": "2"})
    assert isinstance(outcome, Failed) and outcome.errors[0]["pointer"] == "/n" and ran == [2]
    assert isinstance(await started(double, b"\x00"), Failed)
    assert isinstance(await started(lies), Failed)


async def test_only_a_whole_outcome_takes_its_follow_ups_along() -> None:
    class Called:
        queue = "letters"

        def body(self) -> dict[str, object]:
            return {"payload": {"to": "ada"}, "type": "letter"}

    async def writes(fail: bool, *, ctx: Context) -> None:
        ctx.follow_up(Called())
        ctx.follow_up(Called())
        ctx.next("17")
        ctx.on_complete(Called())
        if fail:
            raise ValueError

    outcome = await started(writes, {"fail": False})
    assert isinstance(outcome, Succeeded) and outcome.next == "17"
    keys = [task["idempotency_key"] for task in outcome.follow_ups]
    assert keys == ["id-1:0", "id-1:1"] and {task["queue"] for task in outcome.follow_ups} == {"letters"}
    assert outcome.on_complete == {"queue": "letters", "payload": {"to": "ada"}, "type": "letter"}
    assert await started(writes, {"fail": True}) == RetryAfter("ValueError")


async def test_what_a_task_tells_its_context_may_be_awaited() -> None:
    controls = Watched()

    async def task(*, ctx: Context) -> str:
        await ctx.progress(0.5)
        ctx.progress(0.6)
        await ctx.hold(60)
        await ctx.next("b")
        return "done"

    assert await started(task, controls=controls) == Succeeded("done", (), "b", None)
    assert controls.asked == [("progress", 0.5), ("progress", 0.6), ("hold", 60)]


async def test_the_context_is_where_the_task_runs_and_nowhere_else() -> None:
    controls, name = Watched(), ContextVar("name", default="nobody")

    def in_a_thread() -> str:
        context = Context.current()
        assert context is not None and threading.current_thread() is not threading.main_thread()
        context.progress(0.5, "half")
        context.hold(60)
        with pytest.raises(ValueError, match="a hold lasts"):
            context.hold(0)
        return f"{name.get()} {context.id}"

    name.set("ada")
    assert await started(in_a_thread, None, controls) == Succeeded("ada id-1")
    assert controls.asked == [("progress", {"done": 0.5, "note": "half"}), ("hold", 60)]
    assert Context.current() is None


async def test_a_run_that_is_cancelled_is_cancelled_and_the_function_can_clean_up() -> None:
    controls, entered, cleaned = Watched(), asyncio.Event(), []

    async def render(*, ctx: Context) -> None:
        entered.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            cleaned.append(ctx.cancelled)

    task = started(render, None, controls)
    await entered.wait()
    controls.cancelled = True
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned == [True]


async def test_a_function_that_goes_on_to_its_end_has_an_outcome_all_the_same() -> None:
    entered = asyncio.Event()

    async def stubborn() -> str:
        entered.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "done"
        return "never"

    task = started(stubborn)
    await entered.wait()
    task.cancel()
    assert await task == Succeeded("done")


async def test_a_thread_is_told_that_its_run_was_cancelled() -> None:
    entered, told = threading.Event(), threading.Event()

    def draw(*, ctx: Context) -> None:
        entered.set()
        while not ctx.cancelled:
            threading.Event().wait(0.001)
        told.set()

    task = started(draw)
    await asyncio.to_thread(entered.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(told.wait, 10)


async def test_a_deadline_ends_an_async_function_but_not_one_that_holds() -> None:
    async def slow(hold: bool, *, ctx: Context) -> str:
        if hold:
            ctx.hold(60)
        await asyncio.sleep(0.1)
        return "done"

    assert await started(slow, {"hold": False}, seconds=0.01) == RetryAfter("TimeoutError: still running after 0.01 s")
    assert await started(slow, {"hold": True}, seconds=0.01) == Succeeded("done")
    assert await started(slow, {"hold": False}, seconds=60) == Succeeded("done")


async def test_what_is_no_exception_passes_through() -> None:
    class Stop(BaseException):
        pass

    async def stops() -> None:
        raise Stop

    with pytest.raises(Stop):
        await started(stops)


async def test_only_the_step_that_blocks_is_told_of(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocking, "BLOCKED_SECONDS", 0.05)

    async def polite() -> None:
        await asyncio.sleep(0.1)

    async def rude() -> None:
        await asyncio.sleep(0)
        threading.Event().wait(0.1)

    await started(polite)
    await started(rude)
    assert [record.args[0] for record in caplog.records if "blocked" in record.msg] == ["rude"]  # type: ignore[index]


async def test_threads_are_as_many_as_allowed_and_daemons() -> None:
    threads, most, running, lock = Threads(3), 0, 0, threading.Lock()

    def work() -> bool:
        nonlocal most, running
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.01)
        with lock:
            running -= 1
        return threading.current_thread().daemon

    assert all(await asyncio.gather(*(threads.call(work) for _ in range(12))))
    assert most == 3
