"""The fixture `sluice_test`: what is expected, when tasks run, and what the fake does not pretend to know."""

from dataclasses import dataclass
from datetime import date

import pytest

from sluice_client import Context, Job, Sluice, SyncSluice
from sluice_client.testing import InlineFailure, SluiceTest

pytestmark = pytest.mark.anyio

sluice = Sluice("http://nowhere.invalid")
blocking = SyncSluice("http://nowhere.invalid")
mails: list[str] = []


@dataclass(frozen=True)
class Address:
    city: str
    lines: tuple[str, ...] = ()


class MonthlyReport(Job, queue="reports", name="tests.sdk.testing.MonthlyReport"):
    tenant: str
    month: date

    async def run(self) -> str:
        return f"{self.tenant} {self.month}"


@sluice.task(queue="mail", tries=3)
async def send_welcome(user_id: int, language: str = "en") -> str:
    if user_id < 0:
        raise ConnectionError("no answer")
    mails.append(f"{user_id} {language}")
    return f"welcome {user_id}"


@sluice.task(queue="parcels")
async def send_parcel(to: Address) -> Address:
    return to


@blocking.task(queue="thumbs")
def make_thumb(image: str, width: int = 64) -> str:
    return f"{image}@{width}"


async def test_an_expectation_accepts_any_subset_of_the_arguments(sluice_test: SluiceTest) -> None:
    ref = await send_welcome.dispatch(7)
    await send_welcome.dispatch(8, language="de")
    [found] = sluice_test.expect(send_welcome, user_id=7)
    assert (found.id, found.queue, found.state, found.payload) == (ref.id, "mail", "ready", {"user_id": 7})
    assert sluice_test.expect(send_welcome, 7) == sluice_test.expect(send_welcome, 7, language="en") == [found]
    assert len(sluice_test.expect(send_welcome)) == 2
    sluice_test.expect_count(1, send_welcome, language="de")
    sluice_test.expect_none(send_welcome, user_id=9)
    sluice_test.expect_none(send_parcel)


async def test_a_job_is_expected_by_its_class(sluice_test: SluiceTest) -> None:
    await sluice.dispatch(MonthlyReport.call(tenant="acme", month=date(2026, 11, 1)))
    sluice_test.expect(MonthlyReport, tenant="acme", month=date(2026, 11, 1))
    sluice_test.expect_none(MonthlyReport, tenant="other")
    [ran] = await sluice_test.drain()
    assert ran.result == "acme 2026-11-01"


async def test_a_failed_expectation_shows_what_was_dispatched_instead(sluice_test: SluiceTest) -> None:
    with pytest.raises(AssertionError, match=r"(?s)expected send_welcome\(\) to be dispatched.*Nothing was dispatched"):
        sluice_test.expect(send_welcome)
    await send_welcome.dispatch(7)
    await send_parcel.dispatch_after("2h", Address("Kyiv"))
    with pytest.raises(AssertionError) as failed:
        sluice_test.expect(send_welcome, user_id=8)
    assert str(failed.value).splitlines() == [
        "expected send_welcome(user_id=8) to be dispatched, but it was not. Dispatched were:",
        "  send_welcome(user_id=7) in queue mail, ready",
        "  send_parcel(to={'city': 'Kyiv', 'lines': []}) in queue parcels, due in 2:00:00",
    ]
    with pytest.raises(AssertionError, match=r"send_welcome\(user_id=7\) to be dispatched 2 times, not 1"):
        sluice_test.expect_count(2, send_welcome, user_id=7)
    with pytest.raises(AssertionError, match="0 times, not 1"):
        sluice_test.expect_none(send_welcome)
    with pytest.raises(AssertionError, match="expected nothing to be dispatched"):
        sluice_test.expect_none()


async def test_an_expectation_of_what_is_no_argument_or_no_task_is_an_error(sluice_test: SluiceTest) -> None:
    with pytest.raises(TypeError, match="send_welcome has no argument user"):
        sluice_test.expect(send_welcome, user=7)
    with pytest.raises(TypeError, match="is no task"):
        sluice_test.expect(len)


async def test_a_dispatch_only_stores_the_task_and_a_drain_runs_it(sluice_test: SluiceTest) -> None:
    mails.clear()
    ref = await send_welcome.dispatch(7)
    assert mails == []
    [ran] = await sluice_test.drain()
    assert (ran.id, ran.type, ran.state, ran.attempt, ran.result) == (
        ref.id,
        "send_welcome",
        "succeeded",
        1,
        "welcome 7",
    )
    assert mails == ["7 en"] and await ref.wait() == "welcome 7"
    assert await sluice_test.drain() == []


async def test_what_is_not_due_runs_when_the_clock_has_moved(sluice_test: SluiceTest) -> None:
    await send_welcome.dispatch_after("1d", 7)
    sluice_test.clock.move("23h59m59s")
    assert await sluice_test.drain() == []
    sluice_test.clock.move("1s")
    assert len(await sluice_test.drain()) == 1


async def test_the_clock_only_moves_forward(sluice_test: SluiceTest) -> None:
    for wrong in (-1, "-1s", "soon"):
        with pytest.raises(ValueError, match="duration"):
            sluice_test.clock.move(wrong)


async def test_inline_a_dispatch_runs_the_task_and_all_it_leads_to(sluice_test: SluiceTest) -> None:
    order: list[str] = []

    @sluice.task(queue="steps")
    async def second(name: str) -> None:
        order.append(name)

    @sluice.task(queue="steps")
    async def first(*, ctx: Context) -> None:
        ctx.follow_up(second.call("follow-up"))
        await second.dispatch("dispatched within")
        order.append("first")

    sluice_test.mode = "inline"
    ref = await first.dispatch()
    assert order == ["dispatched within", "first", "follow-up"]
    await ref.wait()


async def test_inline_a_task_that_fails_raises(sluice_test: SluiceTest) -> None:
    sluice_test.mode = "inline"
    with pytest.raises(InlineFailure, match="send_welcome is scheduled after attempt 1: ConnectionError: no answer"):
        await send_welcome.dispatch(-1)


def test_a_sync_test_needs_no_event_loop(sluice_test: SluiceTest) -> None:
    ref = make_thumb.dispatch("ada.png")
    sluice_test.expect(make_thumb, image="ada.png", width=64)
    [ran] = sluice_test.drain_sync()
    assert ran.result == ref.wait() == "ada.png@64"
    sluice_test.mode = "inline"
    assert make_thumb.dispatch("bob.png", 128).wait() == "bob.png@128"


async def test_arguments_and_results_go_through_json(sluice_test: SluiceTest) -> None:
    ref = await send_parcel.dispatch(Address("Kyiv", ("1", "2")))
    assert sluice_test.dispatched[0].payload == {"to": {"city": "Kyiv", "lines": ["1", "2"]}}
    [ran] = await sluice_test.drain()
    assert ran.result == {"city": "Kyiv", "lines": ["1", "2"]}
    assert await ref.wait() == Address("Kyiv", ("1", "2"))


async def test_waiting_for_a_task_that_nobody_runs_is_an_error_at_once(sluice_test: SluiceTest) -> None:
    ref = await send_welcome.dispatch_after("1d", 7)
    with pytest.raises(AssertionError, match=r"is scheduled, and nobody runs it.*sluice_test.drain\(\)"):
        await ref.wait()


async def test_tasks_that_enqueue_one_another_without_an_end_are_an_error(
    sluice_test: SluiceTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice_client.testing.draining.MAX_TASKS", 50)

    @sluice.task(queue="steps")
    async def again() -> None:
        await again.dispatch()

    await again.dispatch()
    with pytest.raises(RuntimeError, match="50 tasks have run, and there are more"):
        await sluice_test.drain()
    assert len(sluice_test.dispatched) == 51


async def test_a_task_without_code_is_an_error_that_names_it(sluice_test: SluiceTest) -> None:
    await sluice.tasks.enqueue("mail", type="send_nothing", payload={})
    with pytest.raises(LookupError, match="no task named 'send_nothing' is declared"):
        await sluice_test.drain()


async def test_what_the_fake_does_not_know_names_the_real_service(sluice_test: SluiceTest) -> None:
    with pytest.raises(NotImplementedError, match=r"GET /overview.*sluice_server"):
        await sluice.overview()
    with pytest.raises(NotImplementedError, match=r"'target' of a task.*sluice_server"):
        await sluice.tasks.enqueue("mail", payload=1, target={"path": "/x"})
    with pytest.raises(NotImplementedError, match=r"'max_depth' of a queue.*sluice_server"):
        await sluice.queues.put("mail", max_depth=10)
    sluice_test.expect_none()


async def test_a_task_that_is_cancelled_while_it_runs_stays_cancelled(sluice_test: SluiceTest) -> None:
    @sluice.task(queue="steps")
    async def cancels_itself(*, ctx: Context) -> str:
        await sluice.tasks.cancel(ctx.id)
        assert ctx.cancelled
        return "too late"

    ref = await cancels_itself.dispatch()
    [ran] = await sluice_test.drain()
    assert (ran.state, ran.result) == ("cancelled", None)
    assert (await sluice.tasks.get(ref.id))["reason"] == "requested"


async def test_progress_is_shown_with_the_task(sluice_test: SluiceTest) -> None:
    @sluice.task(queue="steps")
    async def slow(*, ctx: Context) -> None:
        ctx.progress(0.4, "page 3")

    ref = await slow.dispatch()
    await sluice_test.drain()
    assert (await sluice.tasks.get(ref.id))["progress"] == {"done": 0.4, "note": "page 3"}


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_begins_with_an_empty_service(sluice_test: SluiceTest, turn: int) -> None:
    sluice_test.expect_none()
    await send_welcome.dispatch(turn)


async def test_beside_the_fixture_requests_go_where_they_did(monkeypatch: pytest.MonkeyPatch) -> None:
    from sluice_client import ConnectionFailed

    with pytest.raises(ConnectionFailed):
        await Sluice("http://127.0.0.1:9", timeout=0.1).tasks.get("x")
