"""The engine: the loops, the calls they start, and the order in which everything stops."""

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any

from app.engine.announcer import Announcer, HintListener
from app.engine.breakers import Breakers
from app.engine.dispatcher import Dispatcher
from app.engine.finisher import Finisher
from app.engine.held import Held
from app.engine.holdings import Holdings
from app.engine.housekeeping import Housekeeping
from app.engine.janitor import Janitor
from app.engine.loop import Loop, log_death
from app.engine.pulse import Pulse
from app.engine.scheduler import Scheduler
from app.engine.snapshot import Snapshot
from app.engine.sources import Sources
from app.runtime.core import Core
from app.runtime.signals import ConcurrencySlot, Signals
from app.sources.kinds import WAIT_SECONDS
from app.store import polls
from app.store.failures import Unavailable
from app.store.notify import Hint
from app.store.replicas import Load
from app.telemetry import events
from app.telemetry.logs import get_logger

POLL_SECONDS = 1.0
"""How often all that is due is looked for: what a lost hint costs."""
LAG_SECONDS = 0.5
FOLD_SECONDS = 0.05
"""How long batch deltas accumulate before they are folded."""
ARRIVE_SECONDS = 0.01
"""How long notifications of sluice.enqueue accumulate before what has arrived is looked for."""
COUNT_SECONDS = 0.1
"""How long counts of calls accumulate before they are added to those of the other replicas."""
FIRST_SNAPSHOT_SECONDS = 1.0
"""How long a start waits for the first snapshot, so that the first scrape has every queue; with a deep backlog it goes on
without."""
FLUSH_SECONDS = 10.0
"""Extra time of a drain beyond its grace, for outcomes being written."""
HURRIED_FLUSH_SECONDS = 3.0
"""The same after the second signal."""

log = get_logger(__name__)


class Engine:
    """All loops. Without `dispatching` (an API replica) those run that every replica needs (docs/concepts/architecture.md)."""

    def __init__(
        self,
        core: Core,
        *,
        dispatching: bool,
        capacity: int,
        lease_seconds: float,
        roles: str,
        version: str,
    ) -> None:
        self._core = core
        self._dispatching = dispatching
        self._announcer = Announcer(core.db, core.replica.id)
        self._holdings = Holdings(core, lease_seconds=lease_seconds, ended=self._call_ended)
        self._dispatcher = Dispatcher(core, self._holdings, capacity=capacity, lease_seconds=lease_seconds)
        janitor = Janitor(core)
        self._listener = HintListener(core.db, core.replica.id, self._heard, self._missed_hints)
        self._pulse = Pulse(core, self._announcer, self._listener, self._load, roles=roles, version=version)
        self._long_polls = Loop("long polls", core.long_polls.poll)
        self._beat = Loop("pulse", self._pulse.beat)
        self._lag = Loop("lag", self._measure_lag)
        snapshot = Snapshot(core)
        self._counted = snapshot.counted
        self._snapshot = Loop("snapshot", snapshot.tick)
        self._dispatch = Loop("dispatcher", self._dispatcher.tick)
        self._reap = Loop("reaper", janitor.reap)
        self._renew = Loop("renewer", self._holdings.renew)
        self._promote = Loop("promoter", janitor.promote)
        self._expire = Loop("expirer", janitor.expire)
        self._fold = Loop("folder", janitor.fold)
        self._sweep = Loop("sweeper", janitor.sweep)
        self._sweep_flows = Loop("sweeper of flows", janitor.sweep_flows)
        self._act = Loop("actor", janitor.act)
        self._arrive = Loop("arrivals", janitor.arrive)
        scheduler = Scheduler(core)
        self._fire = Loop("scheduler", scheduler.tick)
        self._dispatcher.yields = lambda: scheduler.goes_first
        self._dispatcher.alone = lambda: self._announcer.alone
        self._finish = Loop("finisher", Finisher(core).tick)
        self._breakers = Loop("breakers", Breakers(core).tick)
        self._sources = Sources(core)
        self._receive = Loop("sources", self._sources.tick)
        self._poll = Loop("poll", self._look_for_work)
        self._always = (
            self._beat,
            self._lag,
            self._snapshot,
            self._long_polls,
            self._poll,
            self._reap,
            self._arrive,
        )
        """Loops of every replica, whether it dispatches or not."""
        self._working = [
            self._fire,
            self._finish,
            self._fold,
            self._sweep,
            self._sweep_flows,
            self._act,
            self._dispatch,
            self._renew,
            self._promote,
            self._expire,
            self._breakers,
            self._receive,
        ]
        self._dispatcher.wake, self._dispatcher.wake_in = self._dispatch.wake, self._dispatch.wake_in
        self._housekeeping = Housekeeping(core)
        self._forever: list[asyncio.Task[None]] = []
        self._stopping = False
        self._lag_at = time.monotonic()
        self._subscribe(core.signals)

    def _subscribe(self, signals: Signals) -> None:
        """Let signals of this replica wake the loops."""
        signals.lane_ready = self._lane_ready
        signals.any_lane_ready = self._any_lane_ready
        signals.slot_freed = self._slot_freed
        signals.rider = self._dispatcher.ride
        signals.task_due_at = self._due_at
        signals.lease_ends = lambda at: self._reap.wake_in(at - self._core.clock.seconds())
        signals.schedule_due_at = lambda at: self._fire.wake_in(at - self._core.clock.seconds())
        signals.batch_changed = lambda: self._fold.wake_in(FOLD_SECONDS)
        signals.calls_counted = lambda: self._breakers.wake_in(COUNT_SECONDS)
        signals.batch_completed = self._finish.wake
        signals.batch_cancelled = self._sweep.wake
        signals.action_started = self._act.wake
        signals.source_changed = self._receive.wake
        signals.revoked = self._revoked

    async def start(self) -> None:
        await self._pulse.beat()
        self._run_forever("waiters", self._core.waiters.run(self._core.db))
        self._run_forever("viewers", self._core.viewers.run())
        self._beat.start()
        self._lag.start()
        self._snapshot.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_SNAPSHOT_SECONDS):
                await self._counted.wait()
        self._long_polls.start()
        self._reap.start()
        self._arrive.start()
        self._poll.start()
        self._run_forever("announcer", self._announcer.run())
        self._run_forever("listener", self._listener.listen())
        if self._dispatching:
            await self._housekeeping.start()
            for loop in self._working:
                loop.start()

    def _run_forever(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._forever.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not self._stopping:
            log_death(task.get_name(), task)

    @property
    def _loops(self) -> tuple[Loop, ...]:
        return *self._always, *self._working

    @property
    def in_flight(self) -> int:
        return self._holdings.count

    def why_not_live(self) -> str | None:
        """Return which loop has ended unexpectedly, or None."""
        dead = [loop.name for loop in self._loops if loop.died]
        dead += [task.get_name() for task in self._forever if task.done()]
        return f"{', '.join(dead)} died" if dead else None

    @property
    def outdated(self) -> bool:
        return self._pulse.outdated

    def begin_drain(self) -> None:
        """Stop claiming, and let nobody wait any longer."""
        self._core.waiters.close()
        self._core.viewers.close()
        self._pulse.draining = True
        self._dispatcher.stopping = True
        self._sources.stop()
        self._core.long_polls.close()

    async def stop(self, grace_seconds: float, hurried: asyncio.Event) -> None:
        """Drain. If the database is unavailable, give up: what is not settled is left to another replica's reaper."""
        self.begin_drain()
        began, in_flight = time.monotonic(), self._holdings.count
        events.emit(log, events.DRAIN_STARTED, in_flight=in_flight, grace_seconds=grace_seconds)
        winding = asyncio.create_task(self._wind_down(grace_seconds, hurried))
        hurry = asyncio.create_task(hurried.wait())
        limit = max(grace_seconds, WAIT_SECONDS if self._sources.receiving else 0.0) + FLUSH_SECONDS
        await asyncio.wait((winding, hurry), timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if hurry.done():
            await asyncio.wait((winding,), timeout=HURRIED_FLUSH_SECONDS)
        hurry.cancel()
        abandoned = self._holdings.count
        winding.cancel()
        cut = 0
        with contextlib.suppress(asyncio.CancelledError, Unavailable):
            cut = await winding
        self._stopping = True
        for loop in self._loops:
            loop.give_up()
        for task in self._forever:
            task.cancel()
        self._sources.give_up()
        events.emit(
            log,
            events.DRAIN_FINISHED,
            seconds=round(time.monotonic() - began, 3),
            settled=in_flight - cut - abandoned,
            released=cut,
            abandoned=abandoned,
        )

    async def _wind_down(self, grace_seconds: float, hurried: asyncio.Event) -> int:
        """Stop claiming, wait for calls in flight up to the grace, flush outcomes, release the rest; return how many that was."""
        await self._dispatcher.stop()
        await self._core.long_polls.drained()
        cut = await self._holdings.drain(grace_seconds, hurried)
        await self._sources.stopped()
        await self._core.settling.drained()
        if self._dispatching:
            self._housekeeping.stop()
            await asyncio.gather(*(loop.stop() for loop in self._working))
        self._core.claiming.stop()
        await asyncio.gather(*(loop.stop() for loop in self._always))
        await self._pulse.goodbye()
        return cut

    def _load(self) -> Load:
        if not self._dispatching:
            return Load()
        return Load(self._dispatcher.capacity, self._holdings.count, *self._dispatcher.short())

    # hints, from here and from others

    def _lane_ready(self, queue_id: int, handler_id: int) -> None:
        self._look_at(queue_id, handler_id)
        self._announcer.lane(queue_id, handler_id)

    def _look_at(self, queue_id: int, handler_id: int) -> None:
        if self._dispatching:
            self._dispatcher.hint(queue_id, handler_id)
        self._core.long_polls.hint(queue_id)

    def _any_lane_ready(self) -> None:
        self._look_at_all()
        self._announcer.any_lane()

    def _look_at_all(self) -> None:
        self._dispatcher.hint_all()
        self._core.long_polls.hint_all()

    def _slot_freed(self, slot: ConcurrencySlot) -> None:
        self._look_at_slot(slot)
        self._announcer.freed(slot)

    def _look_at_slot(self, slot: ConcurrencySlot) -> None:
        self._dispatcher.freed(slot)
        self._core.long_polls.freed(slot)

    def _due_at(self, unix_seconds: float) -> None:
        seconds = unix_seconds - self._core.clock.seconds()
        self._promote.wake_in(seconds)
        self._expire.wake_in(seconds)

    def _revoked(self, task_id: str, owner: str) -> None:
        if owner == self._core.replica.id:
            self._holdings.revoke(task_id)
        else:
            self._announcer.revoked(task_id)

    def _call_ended(self, held: Held) -> None:
        self._dispatcher.ended(held)
        if held.slot is None or held.slot_is == "taken":
            return
        if held.slot_is == "contested":
            self._look_at_slot(held.slot)
        else:
            self._slot_freed(held.slot)

    def _heard(self, hint: Hint) -> None:
        for lane in hint.lanes:
            self._look_at(*lane)
        for slot in hint.freed:
            self._look_at_slot(ConcurrencySlot(*slot))
        if hint.any_lane:
            self._look_at_all()
        if hint.revoked:
            self._holdings.suspect(hint.revoked)
            self._renew.wake()
        if hint.arrived:
            self._arrive.wake_in(ARRIVE_SECONDS)

    def _missed_hints(self) -> None:
        """Assume that hints were lost: lanes may have ready tasks, and leases may have been revoked."""
        self._look_at_all()
        self._holdings.doubt()
        self._renew.wake()

    async def _look_for_work(self) -> float:
        """Wake the loops that have something to do before the next poll, in case a hint was lost. One statement for all of them."""
        due = await polls.poll(self._core.db)
        self._wake_for(self._reap, due.reap)
        self._wake_for(self._arrive, due.arrive)
        if self._dispatching:
            self._wake_for(self._promote, due.promote)
            self._wake_for(self._expire, due.expire)
            self._wake_for(self._fire, due.fire)
            self._wake_for(self._finish, due.finish)
            self._wake_for(self._fold, due.fold)
            self._wake_for(self._sweep, due.sweep)
            self._wake_for(self._sweep_flows, due.flows)
            self._wake_for(self._act, due.act)
            self._wake_for(self._breakers, due.health)
            self._wake_for(self._receive, 0.0 if self._sources.any else due.receive)
        return POLL_SECONDS

    def _wake_for(self, loop: Loop, seconds: float | None) -> None:
        if seconds is not None and seconds < POLL_SECONDS:
            loop.wake_in(seconds)

    async def _measure_lag(self) -> float:
        now = time.monotonic()
        self._core.metrics.loop_woke(max(0.0, now - self._lag_at - LAG_SECONDS))
        self._lag_at = now
        return LAG_SECONDS
