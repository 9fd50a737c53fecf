"""`SyncSluice`, the same in memory and on a service. The tests have no event loop."""

import threading
from collections.abc import Callable, Iterator

import pytest

from sluice_client import Context, Fatal, Invalid, SyncSluice, TaskFailed
from sluice_client.serving.worker import SyncWorker
from tests.wire.api import fresh


class Stage:
    def __init__(self, sluice: SyncSluice, run: Callable[[str], None]) -> None:
        self.sluice = sluice
        self.run = run
        """Run what is on this queue; on a service, a worker goes on doing so."""

    def new_queue(self) -> str:
        name = fresh("q")
        self.sluice.queues.put(name)
        return name


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.ci)])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    if request.param == "fake":
        test = request.getfixturevalue("sluice_test")
        yield Stage(SyncSluice(), lambda _: test.drain_sync())
        return
    sluice = SyncSluice(request.getfixturevalue("sluice_server").url)
    working: list[tuple[SyncWorker, threading.Thread]] = []

    def work(queue: str) -> None:
        worker = sluice.worker(queues=[queue])
        thread = threading.Thread(target=worker.run, daemon=True)
        thread.start()
        working.append((worker, thread))

    yield Stage(sluice, work)
    for worker, thread in working:
        worker.stop()
        thread.join(30)
    sluice.close()


def test_a_task_is_dispatched_runs_and_has_a_result(stage: Stage) -> None:
    queue = stage.new_queue()

    @stage.sluice.task(queue=queue, unique="{number}")
    def double(number: int) -> int:
        return 2 * number

    first, again = double.dispatch(21), double.dispatch(21)
    assert first.id == again.id and first.created and not again.created
    later = double.dispatch_after("1h", 1)
    assert later.why()["blockers"][0]["code"] == "run_at"
    assert later.cancel()["state"] == "cancelled"
    many = stage.sluice.dispatch_many([double.call(number) for number in range(5)])
    stage.run(queue)
    assert [ref.wait("30s") for ref in (first, *many)] == [42, 0, 2, 4, 6, 8]


def test_a_task_that_gives_up_says_why(stage: Stage) -> None:
    queue = stage.new_queue()

    @stage.sluice.task(queue=queue)
    def f() -> None:
        raise Fatal("bad address")

    ref = f.dispatch()
    stage.run(queue)
    with pytest.raises(TaskFailed, match="bad address"):
        ref.wait("30s")
    keyed = f.options(idempotency_key="one")
    keyed.dispatch()
    with pytest.raises(Invalid):
        keyed.options(priority=5).dispatch()


def test_follow_ups_and_batches_close(stage: Stage) -> None:
    queue = stage.new_queue()
    written: list[str | None] = []

    @stage.sluice.task(queue=queue)
    def write(name: str) -> str:
        written.append(name)
        return name

    @stage.sluice.task(queue=queue)
    def write_both(*, ctx: Context) -> None:
        ctx.follow_up(write.call("a"))
        ctx.follow_up(write.call("b"))

    with stage.sluice.batch(on_complete=write_both.call()) as batch:
        first = batch.add(write.call("first"))
    stage.run(queue)
    assert first.wait("30s") == "first" and batch.id is not None
    closing = _until(lambda: stage.sluice.batches.get(str(batch.id))["on_complete"][0]["task"])
    _until(lambda: stage.sluice.batches.get(closing)["completed_at"] if _has_ended(stage, closing) else None)
    assert written[0] == "first" and sorted(map(str, written[1:])) == ["a", "b"]


def _has_ended(stage: Stage, task_id: str) -> bool:
    return stage.sluice.tasks.get(task_id)["ended_at"] is not None


def _until(condition: Callable[[], str | None]) -> str:
    """What the condition answers, once it is something."""
    pause, waited = threading.Event(), 0.0
    while (found := condition()) is None:
        waited += 0.02
        assert waited < 20
        pause.wait(0.02)
    return found
