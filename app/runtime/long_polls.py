"""Long polls: pull workers waiting for tasks of a queue, without a database connection.

A hint says which queue to check, and once per second one statement checks all queues with waiting workers. Claimed tasks go to
the workers that came first. A queue whose claim met a limit is parked under it: a slot that comes free lets one queue try again,
and only one that finds nothing to claim lets out the next. That workers ask for a queue's tasks is recorded in the database every
NOTE_SECONDS, for those who look for a queue's workers.
"""

import asyncio
import random
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import islice
from math import inf

from app.runtime.claiming import Claiming
from app.runtime.groups import GroupWriter
from app.runtime.signals import ConcurrencySlot, Signals
from app.store import tasks
from app.store.db import Database
from app.store.tasks import FLOWS, AttemptEnd, Claimed

BUSY_SECONDS = 0.005
POLL_SECONDS = 1.0
TRIED_LIMITS = 100
"""How many limits with parked queues each poll tries without a hint."""
NOTE_SECONDS = 15.0
"""Maximum age of the record that a queue has workers: a quarter of the time after which it counts as having none."""

LimitKey = tuple[str, int]
"""The level of a limit, and the id of the object that has it."""


@dataclass(slots=True, eq=False)
class LongPoll:
    """A worker that waits for tasks of a queue."""

    tenant_id: int
    queue_id: int
    max_tasks: int
    lease_seconds: float
    answer: "asyncio.Future[list[Claimed]]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class LongPolls:
    """Waiting workers by queue, first come, first served. At most one claim per queue is in progress."""

    def __init__(
        self, db: Database, claiming: Claiming, settling: GroupWriter[AttemptEnd, str], signals: Signals
    ) -> None:
        self._db = db
        self._claiming = claiming
        self._settling = settling
        self._signals = signals
        self._queues: defaultdict[int, deque[LongPoll]] = defaultdict(deque)
        self._serving: dict[int, asyncio.Task[None]] = {}
        self._again: set[int] = set()
        self._parked: dict[LimitKey, dict[int, None]] = {}
        """Queues whose last claim met a limit, by limit, the longest waiting first."""
        self._limits: dict[int, LimitKey] = {}
        """Queue -> the limit it is parked under."""
        self._let_out: dict[int, LimitKey] = {}
        """Queue -> the limit it was parked under before it tried again."""
        self._try_at: dict[LimitKey, float] = {}
        """When queues parked under these limits may try, in monotonic seconds."""
        self._asked: set[int] = set()
        """Queues that workers have asked for, not recorded yet."""
        self._noted: dict[int, float] = {}
        """Queue -> when it was last recorded that it has workers, in monotonic seconds."""
        self.closed = False

    def hint(self, queue_id: int) -> None:
        """Try this queue: tasks became ready, or may be claimed again. A queue parked under a limit stays so, except of flows."""
        if self._limits.get(queue_id, ("",))[0] == FLOWS:
            self._unpark(queue_id)
        if queue_id not in self._queues or queue_id in self._limits:
            return
        if queue_id in self._serving:
            self._again.add(queue_id)
            return
        serving = asyncio.get_running_loop().create_task(self._serve(queue_id))
        self._serving[queue_id] = serving
        serving.add_done_callback(lambda _: self._served(queue_id))

    def freed(self, slot: ConcurrencySlot) -> None:
        """Let one queue parked under the slot's limits try; if it finds nothing to claim, the next one may."""
        for queue_id in self._serving:
            if (line := self._queues.get(queue_id)) and line[0].tenant_id == slot.tenant_id:
                self._again.add(queue_id)
        self._try_next(("tenant", slot.tenant_id))
        self._try_next(("queue", slot.queue_id))
        self._try_next((FLOWS, slot.tenant_id))

    def hint_all(self) -> None:
        for queue_id in list(self._queues):
            self.hint(queue_id)
        self._try_each()

    def _try_next(self, limit: LimitKey) -> None:
        parked = self._parked.get(limit)
        if parked:
            queue_id = next(iter(parked))
            self._unpark(queue_id)
            self._let_out[queue_id] = limit
            self.hint(queue_id)

    def _try_in(self, limit: LimitKey, seconds: float) -> None:
        """Let a queue parked under this limit try in so many seconds; of several times, the earliest counts."""
        at = time.monotonic() + seconds
        if at < self._try_at.get(limit, inf):
            self._try_at[limit] = at
            asyncio.get_running_loop().call_later(max(0.0, seconds), self._try_due, limit, at)

    def _try_due(self, limit: LimitKey, at: float) -> None:
        if self._try_at.get(limit) == at:
            del self._try_at[limit]
            self._try_next(limit)

    def _try_each(self) -> None:
        for limit in list(islice(self._parked, TRIED_LIMITS)):
            self._try_next(limit)

    def _park(self, queue_id: int, limit: LimitKey) -> None:
        self._limits[queue_id] = limit
        self._parked.setdefault(limit, {})[queue_id] = None

    def _unpark(self, queue_id: int) -> LimitKey | None:
        limit = self._limits.pop(queue_id, None)
        if limit is not None:
            parked = self._parked.pop(limit)
            del parked[queue_id]
            if parked:
                self._parked[limit] = parked
        return limit

    async def poll(self) -> float:
        """Check all queues with waiting workers, in case hints were lost. A loop of the engine; returns the seconds to the next."""
        if self._queues:
            for queue_id in await tasks.ready_queues(self._db, list(self._queues)):
                self.hint(queue_id)
            self._try_each()
        await self._note()
        return POLL_SECONDS

    def asked(self, queue_id: int) -> None:
        """Note that a worker asks for tasks of this queue."""
        self._asked.add(queue_id)

    async def _note(self) -> None:
        """Record which queues workers ask for, each at most once per NOTE_SECONDS."""
        now = time.monotonic()
        self._noted = {queue_id: at for queue_id, at in self._noted.items() if now - at < NOTE_SECONDS}
        due = (self._asked | self._queues.keys()) - self._noted.keys()
        if due:
            await tasks.note_workers(self._db, list(due))
            self._asked -= due
            self._noted |= dict.fromkeys(due, now)

    async def wait(self, waiting: LongPoll, seconds: float, gone: Callable[[], Awaitable[object]]) -> list[Claimed]:
        """Wait for tasks for one worker; return none when the time is up or the replica drains. A disconnected worker gets none."""
        self._queues[waiting.queue_id].append(waiting)
        self.hint(waiting.queue_id)
        leaving = asyncio.ensure_future(gone())
        try:
            await asyncio.wait((waiting.answer, leaving), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done() and waiting.answer.done():
                await self._give_back(waiting, waiting.answer.result())
                return []
            return waiting.answer.result() if waiting.answer.done() else []
        except asyncio.CancelledError:
            if waiting.answer.done() and not waiting.answer.cancelled():
                await self._give_back(waiting, waiting.answer.result())
            raise
        finally:
            leaving.cancel()
            waiting.answer.cancel()
            self._forget(waiting)

    def close(self) -> None:
        """Answer all waiting workers now, because the replica is draining."""
        self.closed = True
        for line in self._queues.values():
            for waiting in line:
                if not waiting.answer.done():
                    waiting.answer.set_result([])

    async def drained(self) -> None:
        while self._serving:
            await asyncio.wait(list(self._serving.values()))

    def _forget(self, waiting: LongPoll) -> None:
        line = self._queues.get(waiting.queue_id)
        if line is not None:
            if waiting in line:
                line.remove(waiting)
            if not line:
                del self._queues[waiting.queue_id]
                if (limit := self._unpark(waiting.queue_id)) is not None:
                    self._try_next(limit)

    def _served(self, queue_id: int) -> None:
        del self._serving[queue_id]
        if queue_id in self._again:
            self._again.discard(queue_id)
            self.hint(queue_id)

    async def _serve(self, queue_id: int) -> None:
        """Serve a queue's workers. If its claim meets a limit, park it there; otherwise let out the next parked queue."""
        limit = await self._claim(queue_id)
        tried = self._let_out.pop(queue_id, None)
        if limit is not None and queue_id in self._queues and queue_id not in self._again:
            self._park(queue_id, limit)
        if tried is not None and tried != limit:
            self._try_next(tried)

    async def _claim(self, queue_id: int) -> LimitKey | None:
        """Claim for one worker after the other until the queue has no more; return the limit it met, if any."""
        while not self.closed and (waiting := self._next(queue_id)) is not None:
            try:
                claim = await self._claiming.pull(waiting.tenant_id, queue_id, waiting.max_tasks, waiting.lease_seconds)
            except Exception:
                return None  # logged, and being released; the poll tries again
            if claim.tasks:
                if waiting.answer.done():
                    await self._give_back(waiting, claim.tasks)
                else:
                    waiting.answer.set_result(claim.tasks)
            elif claim.verdict == "busy":
                await asyncio.sleep(BUSY_SECONDS * (0.5 + random.random()))
            elif claim.verdict in ("push", "gone"):
                for left in list(self._queues.get(queue_id, ())):
                    if not left.answer.done():
                        left.answer.set_result([])
                return None
            elif claim.verdict == "full":
                if claim.full_at == "queue":
                    return ("queue", queue_id)
                limit = (claim.full_at, waiting.tenant_id)
                if claim.wait_seconds is not None:
                    self._try_in(limit, claim.wait_seconds)
                return limit
            else:
                return None
        return None

    def _next(self, queue_id: int) -> LongPoll | None:
        return next((w for w in self._queues.get(queue_id, ()) if not w.answer.done()), None)

    async def _give_back(self, waiting: LongPoll, claimed: list[Claimed]) -> None:
        """Release tasks whose worker has disconnected: they are ready again, and the attempt does not count."""
        outcomes = [AttemptEnd(task.task_id, task.token, "refund", "released") for task in claimed]
        await asyncio.gather(*(self._settling.submit(outcome) for outcome in outcomes))
        if outcomes:
            self._signals.lane_ready(waiting.queue_id, 0)
            self._signals.slot_freed(ConcurrencySlot(waiting.tenant_id, 0, waiting.queue_id))
