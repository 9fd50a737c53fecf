"""Pull workers, and handlers that hold: one lease protocol for both.

A worker asks for tasks and may wait for them; the desk keeps those who wait, without a database connection, and serves them
when tasks come: a hint says which queue to look at, and once a second one statement looks at all queues somebody waits at.
That somebody asks for tasks of a queue is noted in the database every NOTE_SECONDS, for those who look for a queue's workers.
Afterwards the lease token alone authorises what its holder does: renew, complete, fail, release. A token settles once; the
same word again is answered as the first and writes nothing. A lease that ran out, reaped or not, is lost.
"""

import asyncio
import random
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from app.domain.errors import Refusal
from app.domain.followups import Page
from app.domain.instants import format_instant
from app.domain.outcomes import Settlement, decide_failure
from app.domain.retries import merged
from app.domain.views import LeasedTaskView, TaskView
from app.domain.zones import local_time
from app.service import followups
from app.service.context import STRANGERS, Caller, Core, Slot
from app.service.followups import MAX_RESULT_BYTES
from app.store import queues, tasks, views
from app.store.tasks import Claimed, Outcome
from app.telemetry.tracing import TraceContext

MAX_TASKS = 100
MAX_WAIT_SECONDS = 60.0
MAX_LEASE_SECONDS = 43_200.0
MAX_PROGRESS_BYTES = 65_536
BUSY_SECONDS = 0.005
POLL_SECONDS = 1.0
NOTE_SECONDS = 15.0
"""How old the note may be that a queue has workers: a quarter of what makes a queue one without."""


@dataclass(slots=True, eq=False)
class Waiting:
    """A worker that waits at a queue."""

    tenant_id: int
    queue_id: int
    max_tasks: int
    lease_seconds: float
    answer: "asyncio.Future[list[Claimed]]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class LeaseDesk:
    """Those who wait, by queue, first come first served. One claim a queue is under way at a time."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._queues: defaultdict[int, deque[Waiting]] = defaultdict(deque)
        self._serving: dict[int, asyncio.Task[None]] = {}
        self._again: set[int] = set()
        self._full: dict[int, int] = {}
        """Queues whose last claim met a limit, and their tenants."""
        self._asked: set[int] = set()
        """Queues that a worker has asked at, and that is not noted yet."""
        self._noted: dict[int, float] = {}
        """When it was last noted that a queue has workers, in monotonic seconds."""
        self.closed = False

    def hint(self, queue_id: int) -> None:
        """Tasks of this queue became ready, or may be claimed again."""
        if queue_id not in self._queues:
            return
        if queue_id in self._serving:
            self._again.add(queue_id)
            return
        serving = asyncio.get_running_loop().create_task(self._serve(queue_id))
        self._serving[queue_id] = serving
        serving.add_done_callback(lambda _: self._served(queue_id))

    def freed(self, slot: Slot) -> None:
        """A slot of a limit came free."""
        for queue_id in [queue_id for queue_id, tenant_id in self._full.items() if tenant_id == slot.tenant_id]:
            del self._full[queue_id]
            self.hint(queue_id)

    def hint_all(self) -> None:
        for queue_id in list(self._queues):
            self.hint(queue_id)

    async def poll(self) -> float:
        """A loop of the engine; the truth where a hint was lost."""
        if self._queues:
            for queue_id in await tasks.ready_queues(self._core.db, list(self._queues)):
                self.hint(queue_id)
        await self._note()
        return POLL_SECONDS

    def asked(self, queue_id: int) -> None:
        """A worker asks for tasks of this queue."""
        self._asked.add(queue_id)

    async def _note(self) -> None:
        """Write which queues workers ask at, each no more often than every NOTE_SECONDS."""
        now = time.monotonic()
        self._noted = {queue_id: at for queue_id, at in self._noted.items() if now - at < NOTE_SECONDS}
        due = (self._asked | self._queues.keys()) - self._noted.keys()
        if due:
            await tasks.note_workers(self._core.db, list(due))
            self._asked -= due
            self._noted |= dict.fromkeys(due, now)

    async def wait(self, waiting: Waiting, seconds: float, gone: Callable[[], Awaitable[object]]) -> list[Claimed]:
        """Tasks for one worker, none when the time is over or the desk closes; a worker that is gone gets nothing."""
        self._queues[waiting.queue_id].append(waiting)
        self.hint(waiting.queue_id)
        leaving = asyncio.ensure_future(gone())
        try:
            await asyncio.wait((waiting.answer, leaving), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done() and waiting.answer.done():
                await give_back(self._core, waiting, waiting.answer.result())
                return []
            return waiting.answer.result() if waiting.answer.done() else []
        except asyncio.CancelledError:
            if waiting.answer.done() and not waiting.answer.cancelled():
                await give_back(self._core, waiting, waiting.answer.result())
            raise
        finally:
            leaving.cancel()
            waiting.answer.cancel()
            self._forget(waiting)

    def close(self) -> None:
        """Answer everybody now: the replica drains."""
        self.closed = True
        for line in self._queues.values():
            for waiting in line:
                if not waiting.answer.done():
                    waiting.answer.set_result([])

    async def drained(self) -> None:
        while self._serving:
            await asyncio.wait(list(self._serving.values()))

    def _forget(self, waiting: Waiting) -> None:
        line = self._queues.get(waiting.queue_id)
        if line is not None:
            if waiting in line:
                line.remove(waiting)
            if not line:
                del self._queues[waiting.queue_id]

    def _served(self, queue_id: int) -> None:
        del self._serving[queue_id]
        if queue_id in self._again:
            self._again.discard(queue_id)
            self.hint(queue_id)

    async def _serve(self, queue_id: int) -> None:
        """Claim for one after the other until the queue has no more to give."""
        while not self.closed and (waiting := self._next(queue_id)) is not None:
            try:
                claim = await self._core.claiming.pull(
                    waiting.tenant_id, queue_id, waiting.max_tasks, waiting.lease_seconds
                )
            except Exception:
                return  # said, and being released; the poll asks again
            if claim.tasks:
                if waiting.answer.done():
                    await give_back(self._core, waiting, claim.tasks)
                else:
                    waiting.answer.set_result(claim.tasks)
            elif claim.verdict == "busy":
                await asyncio.sleep(BUSY_SECONDS * (0.5 + random.random()))
            elif claim.verdict in ("push", "gone"):
                for left in list(self._queues.get(queue_id, ())):
                    if not left.answer.done():
                        left.answer.set_result([])
                return
            else:
                if claim.verdict == "full":
                    self._full[queue_id] = waiting.tenant_id
                return

    def _next(self, queue_id: int) -> Waiting | None:
        return next((w for w in self._queues.get(queue_id, ()) if not w.answer.done()), None)


async def acquire(
    core: Core,
    caller: Caller,
    queue: str,
    *,
    max_tasks: int,
    wait_seconds: float,
    lease_seconds: float,
    gone: Callable[[], Awaitable[object]],
) -> list[LeasedTaskView]:
    """Leased tasks, each the task with `lease_token` and `lease_expires_at`; empty when none came in time.

    Raises Refusal: queue_not_found, queue_is_push.
    """
    caller.require("use")
    row = await queues.find(core.db.lookups(caller.tenant_id), caller.tenant_id, queue)
    if row is None:
        raise Refusal("queue_not_found", f"there is no queue {queue}; PUT /queues/{queue} creates it")
    if row.handler_id is not None:
        raise Refusal("queue_is_push", f"queue {queue} delivers to handler {row.handler}: nothing is left to pull")
    core.desk.asked(row.id)
    until = time.monotonic() + wait_seconds
    claim = await core.claiming.pull(row.tenant_id, row.id, max_tasks, lease_seconds)
    claimed = claim.tasks
    if not claimed and not core.desk.closed and (wait_seconds > 0 or claim.verdict == "busy"):
        seconds = max(until - time.monotonic(), 10 * BUSY_SECONDS)
        claimed = await core.desk.wait(Waiting(row.tenant_id, row.id, max_tasks, lease_seconds), seconds, gone)
    now = core.clock.seconds()
    for task in claimed:
        waited = max(0.0, now - task.run_at.timestamp())
        core.metrics.task_started(caller.tenant, queue, waited)
        core.stats.started(row.id, waited)
    shown = await views.find_tasks(core.db, caller.tenant_id, [task.task_id for task in claimed])
    return [
        LeasedTaskView(
            **msgspec.structs.asdict(shown[task.task_id]),
            cursor=task.cursor,
            schedule_timezone=task.schedule_timezone,
            scheduled_for_local=_local(task),
            lease_token=task.token,
            lease_expires_at=format_instant(task.lease_expires_at),
        )
        for task in claimed
        if task.task_id in shown
    ]


def _local(task: Claimed) -> str | None:
    if task.scheduled_for is None or task.schedule_timezone is None:
        return None
    local = local_time(task.scheduled_for, task.schedule_timezone)
    return None if local is None else local.isoformat(timespec="microseconds")


async def give_back(core: Core, waiting: Waiting, claimed: list[Claimed]) -> None:
    """Whoever waited is not there to take them: ready again, not counted."""
    outcomes = [Outcome(task.task_id, task.token, "refund", "released") for task in claimed]
    await asyncio.gather(*(core.settling.submit(outcome) for outcome in outcomes))
    if outcomes:
        core.signals.lane_ready(waiting.queue_id, 0)
        core.signals.freed(Slot(waiting.tenant_id, 0, waiting.queue_id))


async def renew(core: Core, task_id: str, token: str, seconds: float, progress: bytes | None) -> TaskView:
    """Raises Refusal: lease_lost, task_cancelled, too_large."""
    if progress is not None and len(progress) > MAX_PROGRESS_BYTES:
        raise Refusal("too_large", f"the progress has {len(progress)} bytes, at most {MAX_PROGRESS_BYTES} are allowed")
    told = None if progress is None else progress.decode()
    if await tasks.extend_lease(core.db, task_id, token, seconds, told) is None:
        raise await _refusal(core, task_id, token)
    return await _view(core, task_id)


async def complete(core: Core, task_id: str, token: str, page: Page) -> TaskView:
    """With follow-up work, if the page names any; what is refused leaves the lease as it is.

    Raises Refusal: lease_lost, task_cancelled, invalid, too_large, queue_full.
    """
    if page.result is not None and len(page.result) > MAX_RESULT_BYTES:
        raise Refusal("too_large", f"the result has {len(page.result)} bytes, at most {MAX_RESULT_BYTES} are allowed")
    held = await _held(core, task_id, token)
    result, result_format, truncated = followups.result_of(page)
    outcome = Outcome(
        task_id,
        token,
        "succeeded",
        "succeeded",
        result=result,
        result_format=result_format,
        result_truncated=truncated,
    )
    if held is None or not followups.follows(page):
        return await _settle(core, outcome, held)
    caller = Caller(held.tenant_id, held.tenant, "use")
    lane = (held.queue_id, held.lane)
    context = TraceContext.parse(held.traceparent, held.tracestate)
    verdict = await followups.settle(core, caller, outcome, page, lane, context)
    return await _settled(core, outcome, held, verdict)


async def fail(
    core: Core, task_id: str, token: str, error: str, *, retryable: bool, retry_after_seconds: float
) -> TaskView:
    """Raises Refusal: lease_lost, task_cancelled."""
    held = await _held(core, task_id, token)
    settlement = Settlement("retry", "failed", error=error)
    if held is not None:
        policy = await queues.load_policy(core.db, held.queue_id)
        assert policy is not None, "queues are marked deleted, never removed"
        retry = merged(policy.retry, held.retry)
        settlement = decide_failure(
            error,
            retryable=retryable,
            retry_after_seconds=retry_after_seconds,
            attempt=held.attempt,
            max_attempts=retry.max_attempts,
            policy=retry,
            jitter=random.random(),
        )
    outcome = Outcome(
        task_id,
        token,
        settlement.kind,
        settlement.outcome,
        reason=settlement.reason,
        delay_seconds=settlement.delay_seconds,
        message=settlement.error,
    )
    return await _settle(core, outcome, held)


async def release(core: Core, task_id: str, token: str) -> TaskView:
    """Ready now, and the attempt does not count. Raises Refusal: lease_lost, task_cancelled."""
    held = await _held(core, task_id, token)
    return await _settle(core, Outcome(task_id, token, "refund", "released"), held)


async def _held(core: Core, task_id: str, token: str) -> tasks.HeldLease | None:
    """None where the token has held a lease on the task: its word is a repeat, or comes late and is put on record.

    Raises Refusal (lease_lost) where it never did, before anything is written.
    """
    held = await tasks.held_lease(core.db, task_id, token)
    if held is None and await _fate(core, task_id, token) == "unknown":
        raise lease_lost()
    return held


async def _fate(core: Core, task_id: str, token: str) -> str:
    """Of a token that holds nothing, and may be anybody's: strangers take turns among themselves."""
    return await tasks.fate_of_lease(core.db.lookups(STRANGERS), task_id, token)


async def _settle(core: Core, outcome: Outcome, held: tasks.HeldLease | None) -> TaskView:
    return await _settled(core, outcome, held, await core.settling.submit(outcome))


async def _settled(core: Core, outcome: Outcome, held: tasks.HeldLease | None, verdict: str) -> TaskView:
    if verdict not in ("applied", "repeat"):
        raise await _refusal(core, outcome.task_id, outcome.token)
    if verdict == "applied" and held is not None:
        _count(core, outcome, held)
        if outcome.kind in ("succeeded", "dead"):
            if held.batch_id is not None:
                core.signals.batch_moved()
        elif outcome.delay_seconds > 0:
            core.signals.due_at(core.clock.seconds() + outcome.delay_seconds)
        else:
            core.signals.lane_ready(held.queue_id, held.lane)
        core.signals.freed(Slot(held.tenant_id, held.handler_id, held.queue_id))
    return await _view(core, outcome.task_id)


def _count(core: Core, outcome: Outcome, held: tasks.HeldLease) -> None:
    """The attempt, by whoever ends it; under a call that still runs, the replica that makes it counts its answer."""
    if held.called:
        return
    seconds = max(0.0, core.clock.seconds() - held.started_at.timestamp())
    core.metrics.attempt_ended(held.tenant, held.queue, outcome.outcome, seconds)
    if outcome.kind in ("succeeded", "dead"):
        core.stats.ended(held.queue_id, outcome.kind, seconds)


async def tenant_of_lease(core: Core, task_id: str, token: str) -> int:
    """For whom a holder's word is read: one that holds the lease, or has settled it. Raises Refusal: lease_lost, task_cancelled."""
    if await _fate(core, task_id, token) not in ("held", "settled"):
        raise await _refusal(core, task_id, token)
    tenant_id = await tasks.tenant_of(core.db.lookups(STRANGERS), task_id)
    if tenant_id is None:
        raise lease_lost()
    return tenant_id


async def _refusal(core: Core, task_id: str, token: str) -> Refusal:
    if await _fate(core, task_id, token) == "cancelled":
        return Refusal("task_cancelled", "the task was cancelled: stop working on it")
    return lease_lost()


def lease_lost() -> Refusal:
    """The same whether there is such a task or not: whoever holds no token of it is told nothing about it."""
    return Refusal("lease_lost", "this token holds no lease on the task: it ran out, was settled, or never was its own")


async def _view(core: Core, task_id: str) -> TaskView:
    view = await views.find_any(core.db, task_id)
    if view is None:
        raise lease_lost()  # settled just now, and past its retention already
    return view
