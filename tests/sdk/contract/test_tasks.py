"""What a task goes through, the same in memory and on a service: enqueue, attempts, and how it ends."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from sluice_client import Conflict, Context, Fatal, Invalid, NotFound, Retry, Skip, TaskFailed, exponential, fixed
from tests.docs.pages import ROOT
from tests.sdk.contract.stages import Stage

pytestmark = pytest.mark.anyio

AT_ONCE = fixed(0)
OPENAPI = json.loads((ROOT / "openapi" / "openapi.json").read_text())


def seconds_between(view: dict[str, Any], earlier: str, later: str) -> float:
    return (datetime.fromisoformat(view[later]) - datetime.fromisoformat(view[earlier])).total_seconds()


async def test_a_dispatched_task_is_stored_with_all_of_its_fields(stage: Stage) -> None:
    queue = await stage.new_queue()

    @stage.sluice.task(queue=queue, tries=7, priority=3, key="user-{user_id}", unique="{user_id}", tags=["one", "two"])
    async def f(user_id: int, note: str = "none") -> None: ...

    ref = await f.options(correlation_id="c-1", headers={"x-shop": "7"}).dispatch(7)
    [view] = await stage.read(ref)
    assert set(OPENAPI["components"]["schemas"]["TaskView"]["required"]) | {"payload"} == set(view)
    expected = {
        "id": ref.id,
        "queue": queue,
        "type": "f",
        "state": "ready",
        "reason": None,
        "payload": {"user_id": 7},
        "content_type": "application/json",
        "priority": 3,
        "key": "user-7",
        "unique_key": "7",
        "tags": ["one", "two"],
        "headers": {"x-shop": "7"},
        "correlation_id": "c-1",
        "attempt": 0,
        "max_attempts": 7,
        "started_at": None,
        "ended_at": None,
        "last_error": None,
        "result": None,
        "result_truncated": False,
        "progress": None,
        "lease": None,
        "batch": None,
        "parent": None,
        "expires_at": None,
        "schedule": None,
    }
    assert {name: view[name] for name in expected} == expected


async def test_its_result_comes_back_as_it_is_annotated(stage: Stage) -> None:
    queue = await stage.new_queue()

    @stage.sluice.task(queue=queue)
    async def later(day: datetime, days: int) -> datetime:
        return day + timedelta(days=days)

    ref = await later.dispatch(datetime.fromisoformat("2026-02-28T10:00:00+00:00"), 1)
    [view] = await stage.settled(ref)
    assert (view["state"], view["attempt"], view["result"]) == ("succeeded", 1, "2026-03-01T10:00:00+00:00")
    assert await ref.wait() == datetime.fromisoformat("2026-03-01T10:00:00+00:00")


async def test_a_delayed_task_waits_for_its_time_and_says_so(stage: Stage) -> None:
    queue = await stage.new_queue()

    @stage.sluice.task(queue=queue)
    async def f() -> None: ...

    ref = await f.dispatch_after("0.7s")
    [view] = await stage.read(ref)
    assert view["state"] == "scheduled" and seconds_between(view, "created_at", "run_at") == pytest.approx(0.7)
    why = await ref.why()
    assert why["blockers"][0]["code"] == view["waiting_for"] == "run_at"
    assert why["blockers"][0]["until"] == view["run_at"]
    [view] = await stage.settled(ref)
    assert view["state"] == "succeeded" and seconds_between(view, "run_at", "started_at") >= 0


async def test_a_task_for_a_certain_time_is_due_then_and_one_for_the_past_at_once(stage: Stage) -> None:
    queue = await stage.new_queue()

    @stage.sluice.task(queue=queue)
    async def f() -> None: ...

    at = stage.now() + timedelta(hours=1)
    past, future = await f.dispatch_at(stage.now() - timedelta(hours=1)), await f.dispatch_at(at)
    first, second = await stage.read(past, future)
    assert (first["state"], second["state"]) == ("ready", "scheduled")
    assert datetime.fromisoformat(second["run_at"]) == at


async def test_an_unfinished_task_keeps_others_with_its_unique_key_away(stage: Stage) -> None:
    queue = await stage.new_queue()

    @stage.sluice.task(queue=queue, unique="welcome:{user_id}")
    async def welcome(user_id: int) -> None: ...

    first, again, other = [await welcome.dispatch(user_id) for user_id in (1, 1, 2)]
    assert first.id == again.id != other.id
    await stage.settled(first, other)
    assert (await welcome.dispatch(1)).id != first.id


async def test_an_idempotency_key_finds_the_first_task_even_after_its_end(stage: Stage) -> None:
    queue = await stage.new_queue()

    @stage.sluice.task(queue=queue)
    async def charge(cents: int) -> None: ...

    keyed = charge.options(idempotency_key="order-1")
    first = await keyed.dispatch(100)
    await stage.settled(first)
    assert (await keyed.dispatch(100)).id == first.id
    with pytest.raises(Invalid) as refused:
        await keyed.dispatch(200)
    assert refused.value.code == "idempotency_mismatch"


async def test_higher_priorities_start_first_and_others_in_their_order(stage: Stage) -> None:
    queue = await stage.new_queue()
    started: list[str] = []

    @stage.sluice.task(queue=queue)
    async def f(name: str) -> None:
        started.append(name)

    refs = [
        await f.options(priority=priority).dispatch(name)
        for name, priority in (("low", -5), ("first", 0), ("second", 0), ("high", 80))
    ]
    await stage.settled(*refs)
    assert started == ["high", "first", "second", "low"]


async def test_a_failed_task_is_tried_again_after_its_backoff(stage: Stage) -> None:
    queue = await stage.new_queue()
    attempts: list[int] = []

    @stage.sluice.task(queue=queue, tries=3, backoff=exponential(0.2, 10, jitter="none"))
    async def flaky(*, ctx: Context) -> str:
        attempts.append(ctx.attempt)
        if ctx.attempt < ctx.max_attempts:
            raise ConnectionError("no answer")
        return "done"

    ref = await flaky.dispatch()
    [view] = await stage.settled(ref)
    assert attempts == [1, 2, 3]
    assert (view["state"], view["attempt"], view["result"]) == ("succeeded", 3, "done")
    assert seconds_between(view, "created_at", "ended_at") >= 0.6


async def test_it_is_dead_when_its_attempts_are_used_up(stage: Stage) -> None:
    queue = await stage.new_queue()

    @stage.sluice.task(queue=queue, tries=2, backoff=AT_ONCE)
    async def hopeless() -> None:
        raise ConnectionError("no answer")

    ref = await hopeless.dispatch()
    [view] = await stage.settled(ref)
    assert (view["state"], view["reason"], view["attempt"]) == ("dead", "attempts_exhausted", 2)
    assert view["last_error"] == "ConnectionError: no answer"
    with pytest.raises(TaskFailed) as failed:
        await ref.wait()
    assert failed.value.errors == ["ConnectionError: no answer"] * 2
    why = await ref.why()
    assert why["reason"] == "attempts_exhausted" and len(why["attempts"]) == 2 and why["blockers"] == []


async def test_fatal_ends_it_in_the_first_attempt(stage: Stage) -> None:
    queue = await stage.new_queue()

    @stage.sluice.task(queue=queue)
    async def f() -> None:
        raise Fatal("bad address")

    [view] = await stage.settled(await f.dispatch())
    assert (view["state"], view["attempt"], view["last_error"]) == ("dead", 1, "bad address")
    assert view["reason"] == "stopped_by_worker"


async def test_skip_is_a_success_with_a_reason(stage: Stage) -> None:
    queue = await stage.new_queue()

    @stage.sluice.task(queue=queue)
    async def f() -> None:
        raise Skip("sold")

    [view] = await stage.settled(await f.dispatch())
    assert (view["state"], view["result"]) == ("succeeded", {"skipped": "sold"})


async def test_retry_asks_for_a_later_time_than_the_backoff(stage: Stage) -> None:
    queue = await stage.new_queue()

    @stage.sluice.task(queue=queue, backoff=AT_ONCE)
    async def f(*, ctx: Context) -> None:
        if ctx.attempt == 1:
            raise Retry("not yet", after=0.5)

    [view] = await stage.settled(await f.dispatch())
    assert (view["state"], view["attempt"], view["last_error"]) == ("succeeded", 2, "not yet")
    assert seconds_between(view, "created_at", "ended_at") >= 0.5


async def test_a_payload_that_does_not_fit_is_dead_at_once_and_says_where(stage: Stage) -> None:
    queue = await stage.new_queue()

    @stage.sluice.task(queue=queue)
    async def f(user_id: int) -> None: ...

    task = await stage.sluice.tasks.enqueue(queue, type="f", payload={"user_id": "seven"})
    [view] = await stage.settled(task["id"])
    assert (view["state"], view["attempt"]) == ("dead", 1) and "/user_id" in view["last_error"]


async def test_a_cancelled_task_does_not_run_and_one_that_has_ended_cannot_be_cancelled(stage: Stage) -> None:
    queue = await stage.new_queue()
    ran: list[str] = []

    @stage.sluice.task(queue=queue)
    async def f(name: str) -> None:
        ran.append(name)

    cancelled, other = await f.dispatch("cancelled"), await f.dispatch("other")
    await cancelled.cancel()
    await cancelled.cancel()
    views = await stage.settled(cancelled, other)
    assert [(view["state"], view["reason"]) for view in views] == [("cancelled", "requested"), ("succeeded", None)]
    assert ran == ["other"]
    with pytest.raises(Conflict) as refused:
        await other.cancel()
    assert refused.value.code == "task_ended"


async def test_a_dead_task_that_is_retried_has_all_attempts_again(stage: Stage) -> None:
    queue = await stage.new_queue()
    works: list[bool] = []

    @stage.sluice.task(queue=queue, tries=1)
    async def f() -> None:
        if not works:
            raise ConnectionError("no answer")

    ref = await f.dispatch()
    [view] = await stage.settled(ref)
    assert view["state"] == "dead"
    works.append(True)
    again = await stage.sluice.tasks.retry(ref.id)
    assert (again["state"], again["attempt"], again["reason"], again["ended_at"]) == ("ready", 0, None, None)
    [view] = await stage.settled(ref)
    assert (view["state"], view["attempt"]) == ("succeeded", 1)
    with pytest.raises(Conflict) as refused:
        await stage.sluice.tasks.retry(ref.id)
    assert refused.value.code == "task_ended"


async def test_a_task_that_waits_too_long_is_dead(stage: Stage) -> None:
    queue = await stage.new_queue()

    @stage.sluice.task(queue=queue)
    async def f() -> None: ...

    [view] = await stage.settled(await f.options(ttl="0.3s", after="0.4s").dispatch())
    assert (view["state"], view["reason"], view["attempt"]) == ("dead", "expired", 0)


async def test_many_tasks_come_back_in_their_order(stage: Stage) -> None:
    queue, other = await stage.new_queue(), await stage.new_queue()

    @stage.sluice.task(queue=queue)
    async def double(number: int) -> int:
        return 2 * number

    calls = [(double.options(queue=other) if n % 2 else double).call(n) for n in range(20)]
    refs = await stage.sluice.dispatch_many(calls)
    views = await stage.settled(*refs)
    assert [view["result"] for view in views] == [2 * n for n in range(20)]
    assert [view["queue"] for view in views] == [queue, other] * 10


async def test_each_attempt_is_on_record(stage: Stage) -> None:
    queue = await stage.new_queue()

    @stage.sluice.task(queue=queue, backoff=AT_ONCE)
    async def f(*, ctx: Context) -> None:
        if ctx.attempt == 1:
            raise ConnectionError("no answer")

    ref = await f.dispatch()
    await stage.settled(ref)
    attempts = [dict(one) async for one in stage.sluice.tasks.attempts(ref.id)]
    found = [(one["number"], one["counted"], one["outcome"], one["error"]) for one in attempts]
    assert found == [(2, True, "succeeded", None), (1, True, "failed", "ConnectionError: no answer")]
    required = set(OPENAPI["components"]["schemas"]["AttemptView"]["required"])
    assert all(required == set(one) for one in attempts)


async def test_what_is_not_valid_is_refused_with_a_pointer_and_what_is_just_within_bounds_is_not(stage: Stage) -> None:
    queue = await stage.new_queue()
    wrong: list[dict[str, Any]] = [
        *({"delay_seconds": value} for value in (-1, 31_622_401, "5")),
        *({"ttl_seconds": value} for value in (0, 316_224_001)),
        *({"timeout_seconds": value} for value in (0, 43_201)),
        *({"run_at": value} for value in ("2026-11-26T12:00:00", "soon", stage.now() + timedelta(days=367))),
        {"expires_at": "later"},
        *({"priority": value} for value in (101, True, 1.5)),
        *({name: value} for name in ("type", "unique_key", "idempotency_key") for value in ("", "x" * 256, 7)),
        *({"key": value} for value in ("", "é" * 65)),
        *({"tags": value} for value in (["a", "a"], [str(number) for number in range(11)], "a")),
        *({"on_duplicate": value} for value in ("replace", "twice")),
    ]
    for fields in wrong:
        with pytest.raises(Invalid) as refused:
            await stage.sluice.tasks.enqueue(queue, payload=1, **fields)
        assert [error["pointer"] for error in refused.value.errors] == [f"/{name}" for name in fields], fields
    with pytest.raises(Invalid) as refused:
        await stage.sluice.tasks.enqueue(queue, payload=1, tags=["a", "x" * 101])
    assert [error["pointer"] for error in refused.value.errors] == ["/tags/1"]
    most: dict[str, Any] = {
        "type": "é" * 255,
        "unique_key": "x" * 255,
        "key": "é" * 64,
        "tags": ["x" * 100],
        "timeout_seconds": 43_200,
    }
    await stage.sluice.tasks.enqueue(queue, payload=1, delay_seconds=31_622_400, ttl_seconds=316_224_000, **most)
    await stage.sluice.tasks.enqueue(
        queue, payload=1, on_duplicate="keep", unique_key="y", timeout_seconds=0.1, tags=[]
    )
    with pytest.raises(NotFound) as missing:
        await stage.sluice.tasks.get("00000000-0000-7000-8000-000000000000")
    assert missing.value.code == "task_not_found"


async def test_a_newcomer_with_the_same_unique_key_can_take_the_place_of_the_waiting_one(stage: Stage) -> None:
    queue = await stage.new_queue()

    @stage.sluice.task(queue=queue, unique="index", on_duplicate="replace")
    async def index(version: int) -> int:
        return version

    first = await index.dispatch(1)
    assert (await index.dispatch(2)).id == first.id
    [view] = await stage.settled(first)
    assert view["result"] == 2
