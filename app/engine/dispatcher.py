"""The dispatcher: claims ready tasks lane by lane and calls their handlers.

A lane is a queue and the handler its tasks named for themselves. For each lane the dispatcher knows only hints: tasks became
ready, a slot came free, the last claim found more. A hint leads to a claim, the claim's verdict says what is true, and about
once a second every lane with ready tasks is hinted anyway, so a lost hint costs a second and nothing more.

Room is shared by dynamic thresholds (Choudhury and Hahne, 1998): a lane may hold as many calls as there is room left, so one
lane alone gets half of the capacity, and a lane whose handler hangs can never take the last of it.
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from app.engine.calls import Calls
from app.service.context import Core
from app.store import tasks

POLL_SECONDS = 1.0
MAX_CLAIM = 200
MAX_CLAIMS_IN_FLIGHT = 4
GATHER_SECONDS = 0.01
"""How long a lane that has more than its room waits for a quarter of it before the next claim: fewer, larger claims."""
BUSY_SECONDS = 0.004
SHUT = ("paused", "disabled", "worker", "gone")
"""Verdicts that enqueues do not change: whatever does change them stirs, so hints alone need not be followed at once."""

LaneKey = tuple[int, int]


@dataclass(slots=True)
class LaneState:
    hinted: bool = False
    not_before: float = 0.0
    """Monotonic seconds; set after `busy`, and while a deep lane gathers room."""
    gathering: bool = False
    claiming: bool = False
    full: bool = False
    """Its last claim met a limit: whatever frees a slot hints it again."""


class Dispatcher:
    """`tick` is a loop of the engine; the calls it starts live in `calls`."""

    def __init__(self, core: Core, calls: Calls, *, capacity: int, lease_seconds: float) -> None:
        self._core = core
        self._calls = calls
        self._capacity = capacity
        self._lease_seconds = lease_seconds
        self._lanes: dict[LaneKey, LaneState] = {}
        self._polled_at = -POLL_SECONDS
        self._claims: set[asyncio.Task[None]] = set()
        self._asked = 0
        """Tasks asked for by claims in flight."""
        self._hungry = False
        self.wake: Callable[[], None] = lambda: None
        """Main connects the loop that ticks this."""
        self.stopping = False

    # hints

    def hint(self, queue_id: int, handler_id: int) -> None:
        lane = self._lane((queue_id, handler_id))
        if not lane.hinted:
            lane.hinted = True
            self.wake()

    def hint_all(self) -> None:
        """Something opened that may have been shut for any lane."""
        self._polled_at = -POLL_SECONDS
        for lane in self._lanes.values():
            lane.not_before = 0.0
        self.wake()

    def hint_full(self) -> None:
        """A slot of some limit came free: it may be the one any of the full lanes waits for."""
        for lane in self._lanes.values():
            if lane.full or lane.claiming:
                lane.full = False
                lane.hinted = True
        self.wake()

    def room_freed(self) -> None:
        """A call has ended. Wakes the loop only if a hinted lane was left waiting and there is room for a fair claim."""
        if self._hungry and self._capacity - self._calls.count - self._asked >= self._capacity // 8:
            self.wake()

    def _lane(self, key: LaneKey) -> LaneState:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = LaneState()
        return lane

    # the loop

    async def tick(self) -> float:
        now = time.monotonic()
        if now - self._polled_at >= POLL_SECONDS:
            self._polled_at = now
            ready = await tasks.ready_lanes(self._core.db)
            for key in ready:
                self._lane(key).hinted = True
            self._forget(set(ready))
        return self._start_claims()

    def _forget(self, ready: set[LaneKey]) -> None:
        for key in [k for k, lane in self._lanes.items() if k not in ready and not lane.hinted and not lane.claiming]:
            if not self._calls.in_lane(key):
                del self._lanes[key]

    def _start_claims(self) -> float:
        """Start a claim for every hinted lane that has room, in random order; seconds until the next look."""
        now = time.monotonic()
        wait = self._polled_at + POLL_SECONDS - now
        hinted = [(key, lane) for key, lane in self._lanes.items() if lane.hinted and not lane.claiming]
        random.shuffle(hinted)
        self._hungry = False
        for key, lane in hinted:
            if self.stopping or len(self._claims) >= MAX_CLAIMS_IN_FLIGHT:
                break
            share = self._share(key)
            if lane.not_before > now and not (lane.gathering and share >= self._capacity // 8):
                wait = min(wait, lane.not_before - now)
                self._hungry = True
            elif share <= 0:
                wait = min(wait, GATHER_SECONDS)
                self._hungry = True
            else:
                lane.hinted, lane.claiming, lane.gathering = False, True, False
                claim = asyncio.get_running_loop().create_task(self._claim(key, lane, min(share, MAX_CLAIM)))
                self._claims.add(claim)
                claim.add_done_callback(self._claims.discard)
        return max(0.001, wait)

    def _share(self, key: LaneKey) -> int:
        """How many the lane may claim so that it then holds no more than is left; one, where one is all there is."""
        free = self._capacity - self._calls.count - self._asked
        return (free - self._calls.in_lane(key) + 1) // 2

    async def _claim(self, key: LaneKey, lane: LaneState, want: int) -> None:
        sent = time.monotonic()
        self._asked += want
        try:
            claim = await self._core.claiming.claim(key[0], key[1], want, self._lease_seconds, pull=False)
            if claim.tasks:
                await self._calls.start(key, claim, sent)
            self._heed(lane, claim.verdict, want, len(claim.tasks))
        except Exception:
            # said, and what it may have taken is being released; the lane is asked again later
            lane.hinted, lane.not_before = True, time.monotonic() + POLL_SECONDS
        finally:
            self._asked -= want
            lane.claiming = False
            self.wake()

    def _heed(self, lane: LaneState, verdict: str, want: int, got: int) -> None:
        now = time.monotonic()
        if verdict == "ok":
            lane.hinted, lane.gathering, lane.not_before = True, True, now + GATHER_SECONDS
        elif verdict == "busy":
            lane.hinted, lane.not_before = True, now + BUSY_SECONDS * (0.5 + random.random())
        elif verdict == "full":
            lane.full = True
        elif verdict in SHUT:
            lane.not_before = now + POLL_SECONDS

    async def stop(self) -> None:
        """Claim nothing more, and let the claims in flight come home."""
        self.stopping = True
        while self._claims:
            await asyncio.wait(self._claims)
