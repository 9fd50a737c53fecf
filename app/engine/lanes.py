"""Lanes: what the dispatcher knows about each, and whose turn it is.

A lane is a queue and the handler that its tasks name themselves (0: the queue's). A lane with a hint waits in its tenant's line
until a claim for it starts; tenants take turns, and so do a tenant's lanes. A lane whose claim met a limit is parked under that
limit: a slot that comes free lets one lane out, and only a lane that finds room lets the next one out, so that a free slot does
not cost a claim per waiting lane.
A lane is parked under its tenant's flows if named or keyed limits or rates block all of its tasks. Other tasks may come that they
do not block, so a hint lets it out, and so does the time at which one of the tenant's rates admits something again. A lane whose
handler asked for a pause is parked under that handler, until the pause is over.
"""

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from math import inf

from app.runtime.signals import ConcurrencySlot
from app.store.tasks import FLOWS, LaneWant

LaneKey = tuple[int, int]
LimitKey = tuple[str, int]
"""The level of a limit (tenant, handler, queue, flows), and the id of the object that has it; of flows, the tenant's."""

Start = tuple[int, datetime]
"""A place in the order of claiming: priority and run_at."""
START_SECONDS = 10.0
"""How long claims of a lane start at a remembered place before one is tried without."""
LATE_COMMIT = timedelta(seconds=0.5)
"""How far before that place claims start, for enqueues that commit later than others with the same run_at."""


@dataclass(slots=True, eq=False)
class Lane:
    key: LaneKey
    tenant: int
    hinted: bool = False
    """Another claim may find something. During a claim: something has happened that it may have missed."""
    claiming: bool = False
    gathering: bool = False
    paused_until: float = 0.0
    """Monotonic seconds."""
    age: int = 0
    """The generation of the pause: one from before the last hint_all has ended."""
    parked: LimitKey | None = None
    let_out: LimitKey | None = None
    """It was parked under this limit; the next lane may follow if it finds room."""
    let_out_at: float = 0.0
    held_when_full: int = 0
    """How many places it held when its claim met that limit."""
    group: int = 1
    """How many tasks its handler takes in one call."""
    forming: bool = False
    """Its next group is forming; it is hinted when that need not wait for more tasks any longer."""
    limited: bool = False
    """Whether it was under any limit at its last claim."""
    busy: int = 0
    """How many claims in a row were busy."""
    slow: bool = False
    """Whether its last scan of everything was slow."""
    start: Start | None = None
    """Where its claims start, because scans over what was taken before are slow: they then find nothing before it."""
    start_ends: float = 0.0
    """Until when, in monotonic seconds; then one claim scans everything."""


class Lanes:
    def __init__(self) -> None:
        self._known: dict[LaneKey, Lane] = {}
        self._tenants: dict[int, int] = {}
        """Queue -> tenant, which never changes."""
        self._strangers: set[LaneKey] = set()
        """Lanes with a hint whose tenant is not known yet."""
        self._waiting: dict[int, dict[LaneKey, Lane]] = {}
        """By tenant, the one served longest ago first; the lanes of each likewise."""
        self._parked: dict[LimitKey, dict[LaneKey, Lane]] = {}
        """By limit, the one tried longest ago first; the lanes under each likewise."""
        self._claiming: set[Lane] = set()
        self._timers: dict[LimitKey, float] = {}
        """When lanes parked under these limits may be tried again, in monotonic seconds."""
        self._age = 0

    # hints

    def hint(self, key: LaneKey) -> bool:
        """Note that something may be claimed in this lane; return whether that is new."""
        lane = self._known.get(key)
        if lane is None:
            tenant = self._tenants.get(key[0])
            if tenant is None:
                self._strangers.add(key)
                return True
            lane = self._known[key] = Lane(key, tenant)
        if lane.hinted or (lane.parked is not None and lane.parked[0] != FLOWS):
            return False
        if lane.parked is not None:
            self._unpark(lane.parked, lane)
        lane.hinted = True
        self._line_up(lane)
        return True

    def hint_all(self) -> None:
        """End every pause, and let one lane per limit try: whatever blocked them may be gone."""
        self._age += 1
        for lane in self._claiming:
            lane.hinted = True
        for limit in list(self._parked):
            self.let_out(limit)

    def freed(self, slot: ConcurrencySlot) -> None:
        """Let one lane per limit of this slot try; lanes that are trying may try again."""
        for lane in self._claiming:
            if lane.tenant == slot.tenant_id:
                lane.hinted = True
        for limit in (*limits_of(slot), (FLOWS, slot.tenant_id)):
            self.let_out(limit)

    def let_out(self, limit: LimitKey) -> bool:
        """Let the lane parked longest under this limit try again; return whether there was one."""
        parked = self._parked.get(limit)
        if parked is None:
            return False
        lane = parked[next(iter(parked))]
        self._unpark(limit, lane)
        lane.let_out, lane.hinted = limit, True
        lane.let_out_at = time.monotonic()
        self._line_up(lane)
        return True

    def _unpark(self, limit: LimitKey, lane: Lane) -> None:
        parked = self._parked.pop(limit)
        del parked[lane.key]
        if parked:  # behind the other limits
            self._parked[limit] = parked
        lane.parked = None

    def try_at(self, limit: LimitKey, at: float) -> None:
        """Let a lane parked under this limit try again at this time, in monotonic seconds; of several, the earliest counts."""
        self._timers[limit] = min(at, self._timers.get(limit, at))

    def try_due(self, now: float) -> float:
        """Let out what is due, and return when the next is, in monotonic seconds."""
        for limit in [limit for limit, at in self._timers.items() if at <= now]:
            del self._timers[limit]
            self.let_out(limit)
        return min(self._timers.values(), default=inf)

    def first_parked(self, limit: LimitKey) -> Lane | None:
        """Return the lane parked longest under this limit."""
        return next(iter(self._parked.get(limit, {}).values()), None)

    def full(self, count: int) -> list[LimitKey]:
        """Return up to `count` limits with parked lanes."""
        return list(islice(self._parked, count))

    def pause(self, lane: Lane, until: float) -> None:
        lane.paused_until, lane.age = until, self._age

    def paused_until(self, lane: Lane) -> float:
        """Return until when the lane is paused, in monotonic seconds."""
        return lane.paused_until if lane.age == self._age else 0.0

    # where claims start

    def scanned(self, lane: Lane, priority: int | None, since: datetime | None, now: float) -> None:
        """Note where the lane's next claim may start after a slow scan (None: it was quick). One slow scan alone may be chance."""
        if priority is None or since is None:
            lane.slow = lane.start is not None
        elif lane.start is not None or lane.slow:
            if lane.start is None:
                lane.start_ends = now + START_SECONDS
            lane.start = (priority, since - LATE_COMMIT)
        else:
            lane.slow = True

    def first_at(self, key: LaneKey, priority: int, run_at: datetime) -> None:
        """Note where a lane's first ready task is: if that is before the place where its claims start, they start there."""
        lane = self._known.get(key)
        if lane is not None and lane.start is not None:
            (priority_at, since), first = lane.start, run_at - LATE_COMMIT
            if priority > priority_at or (priority == priority_at and first < since):
                lane.start = (priority, first)

    def want(self, lane: Lane, count: int, now: float) -> LaneWant:
        """Return what to claim of a lane, and from where."""
        if lane.start is None or now > lane.start_ends:
            lane.start = None
            return LaneWant(*lane.key, count)
        return LaneWant(*lane.key, count, *lane.start)

    # whose they are

    @property
    def strange_queues(self) -> set[int]:
        return {queue_id for queue_id, _ in self._strangers}

    def introduce(self, queue_ids: Collection[int], tenants: Mapping[int, int]) -> None:
        """Record the tenants of these queues; a queue without one has been deleted."""
        self._tenants.update(tenants)
        for key in [key for key in self._strangers if key[0] in queue_ids]:
            self._strangers.discard(key)
            if key[0] in tenants:
                self.hint(key)

    # turns

    def tenants(self) -> list[int]:
        """Return the tenants with waiting lanes."""
        return list(self._waiting)

    def has_waiting(self, count: int) -> bool:
        """Return whether at least so many lanes wait, of all tenants."""
        for line in self._waiting.values():
            count -= len(line)
            if count <= 0:
                return True
        return False

    def waiting(self, tenant: int, limit: int) -> list[Lane]:
        """Return the first `limit` lanes in the tenant's line."""
        return list(islice(self._waiting.get(tenant, {}).values(), limit))

    def begin(self, lane: Lane) -> None:
        """Start a claim: the lane leaves the line, and its tenant goes to the end of the tenants' line."""
        lane.hinted, lane.claiming, lane.gathering = False, True, False
        self._claiming.add(lane)
        line = self._waiting.pop(lane.tenant)
        del line[lane.key]
        if line:
            self._waiting[lane.tenant] = line

    def pass_over(self, lanes: Iterable[Lane]) -> None:
        """Move these lanes behind the others in the line."""
        for lane in lanes:
            line = self._waiting[lane.tenant]
            line[lane.key] = line.pop(lane.key)

    def end(self, lane: Lane, full_at: LimitKey | None) -> None:
        """End a claim, which met the limit `full_at` if it is not None; `hinted` says whether the lane continues."""
        lane.claiming = False
        self._claiming.discard(lane)
        if lane.hinted:
            self._line_up(lane)
        elif full_at is not None:
            lane.parked = full_at
            self._parked.setdefault(full_at, {})[lane.key] = lane

    def forget(self) -> None:
        """Drop idle lanes."""
        for key, lane in list(self._known.items()):
            if not (lane.hinted or lane.claiming or lane.parked or lane.forming):
                del self._known[key]

    def _line_up(self, lane: Lane) -> None:
        if not lane.claiming:
            self._waiting.setdefault(lane.tenant, {})[lane.key] = lane


def limits_of(slot: ConcurrencySlot) -> tuple[LimitKey, ...]:
    """Return the limits of which it is a slot, in the order in which lanes that wait for them take their turns."""
    return ("tenant", slot.tenant_id), ("handler", slot.handler_id), ("queue", slot.queue_id)
