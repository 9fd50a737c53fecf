"""The dispatcher: claims ready tasks lane by lane and calls their handlers.

For each lane the dispatcher has only hints: tasks became ready, a slot came free, the last claim found more. A hint leads to a
claim, whose verdict is authoritative. About once per second every lane with ready tasks gets a hint anyway, so a lost hint costs
only a second, or longer with ready tasks in so many lanes that finding them takes a noticeable share of the time.

Tenants take turns, and so do the lanes of each tenant (engine/lanes.py). domain/places.py limits the concurrent calls of each.
"""

import asyncio
import random
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from functools import partial
from typing import Any

from app.domain.places import Places, level, reserve
from app.engine.claims import MAX_CLAIM, MAX_LANES, Group, Ride, rides
from app.engine.held import Held
from app.engine.holdings import Holdings
from app.engine.lanes import Lane, LaneKey, Lanes, LimitKey, limits_of
from app.runtime.core import Core
from app.runtime.signals import ConcurrencySlot
from app.store import queues, tasks
from app.store.tasks import FIRST_LANE, FLOWS, AttemptEnd, Claim, LaneWant

POLL_SECONDS = 1.0
POLL_LANES = 500
"""How many lanes with ready tasks one statement finds."""
POLL_SHARE = 0.2
"""The share of its time that a replica may spend on polling: with very many lanes a round takes longer than POLL_SECONDS."""
TRIED_LIMITS = 100
"""How many limits with parked lanes are tried without a hint after each round."""
MAX_CLAIMS_IN_FLIGHT = 5
PATIENCE_SECONDS = 0.01
"""How long lanes wait behind a claim in progress before another starts beside it, unless they fill one: a claim of many lanes costs
little more than a claim of few."""
LOOKED_AT = 100
"""How many lanes of a tenant are considered to find one that may continue."""
GATHER_SECONDS = 0.01
"""How long a lane with more tasks than room waits for an eighth of all places, for fewer but larger claims."""
GATHER_PART = 8
YIELD_SECONDS = 0.05
YIELDING_CLAIM = 20
"""While something else goes first, claims start this far apart and take this many tasks each."""
SLOTS_SECONDS = 0.002
"""How long a lane at its limit waits for a quarter of the slots that it held to come free."""
BUSY_SECONDS = 0.004
"""The average pause of a lane after a busy claim; it doubles with each further one, up to MAX_DOUBLINGS times."""
MAX_DOUBLINGS = 3
MAX_RIDDEN = 128
"""How many slots a lane may hold whose claims ride along with outcomes, while there are other replicas."""
FORMING_SECONDS = 0.05
"""How long a lane whose next group is forming is not claimed, whatever becomes ready; less if the group may go earlier."""
SHUT = ("paused", "disabled", "worker", "gone")
"""Verdicts that enqueues cannot change. Whatever changes them hints every lane, so other hints need not be followed at once."""
CLOSED = ("parked", "breaker_open")
"""Verdicts for every lane of a handler: like its limit, were it 0."""
MAX_SHORT = 1000
"""How many queues that wait for places are reported."""


class Dispatcher:
    """A loop of the engine (`tick`); `holdings` has the attempts it starts."""

    def __init__(self, core: Core, holdings: Holdings, *, capacity: int, lease_seconds: float) -> None:
        self._core = core
        self._holdings = holdings
        self._lease_seconds = lease_seconds
        self._places = Places(capacity)
        self._lanes = Lanes()
        self._poll_at = self._round_at = 0.0
        """When the next poll of lanes and the next round of polls are due, in monotonic seconds."""
        self._polled: LaneKey = FIRST_LANE
        """The last lane polled in this round."""
        self._any_lane_ready = True
        self._claims: set[asyncio.Task[None]] = set()
        self._unanswered = 0
        """How many claims are at the database; the others start their calls."""
        self._ahead: Group | None = None
        """The newest claim of lanes without limits, until it is answered."""
        self._limited: set[int] = set()
        """Tenants with a claim in progress for lanes under limits."""
        self._starved = False
        """Whether lanes wait for places, or gather them."""
        self.wake: Callable[[], None] = lambda: None
        self.wake_in: Callable[[float], None] = lambda seconds: None
        """Wakes the loop that ticks this; connected by the engine."""
        self.yields: Callable[[], bool] = lambda: False
        """Whether something else goes first for now; connected by the engine."""
        self.alone: Callable[[], bool] = lambda: False
        """Whether no other replica has been seen lately; connected by the engine."""
        self._yields_until = 0.0
        self._claim_size = MAX_CLAIM
        self.stopping = False

    @property
    def capacity(self) -> int:
        return self._places.places

    def short(self) -> tuple[list[int], list[int]]:
        """Return who is waiting for places: tenants that may take none at all, and queues of others with such a lane."""
        tenants: list[int] = []
        found: set[int] = set()
        for tenant in self._lanes.tenants():
            if self._places.room(tenant) <= 0:
                tenants.append(tenant)
            elif len(found) < MAX_SHORT:
                waiting = self._lanes.waiting(tenant, LOOKED_AT)
                found.update(lane.key[0] for lane in waiting if self._places.lane_room(tenant, lane.key) <= 0)
        return tenants[:MAX_SHORT], list(found)

    # hints

    def hint(self, queue_id: int, handler_id: int) -> None:
        if self._lanes.hint((queue_id, handler_id)):
            self.wake()

    def hint_all(self) -> None:
        """Try every lane: something that may have blocked any of them has changed."""
        self._any_lane_ready = True
        self._lanes.hint_all()
        self.wake()

    def freed(self, slot: ConcurrencySlot) -> None:
        """Note that a slot of a limit came free."""
        self._lanes.freed(slot)
        self.wake()

    def ended(self, held: Held) -> None:
        """Note that a call has ended. Waiting lanes are tried once there is room for a large claim, or soon."""
        self._places.leave(held.policy.tenant_id, held.lane, 1)
        if self._starved:
            if self._places.open >= self.capacity // GATHER_PART:
                self.wake()
            else:
                self.wake_in(GATHER_SECONDS)

    # claims that ride along with outcomes

    def ride(self, outcomes: Sequence[AttemptEnd]) -> Ride | None:
        """Begin the claim that goes with the writing of these outcomes, if lanes of one of their tenants wait for their slots."""
        helds = self._holdings.of_slots(outcomes)
        slots = {held.slot for held in helds if held.slot is not None}
        if not slots or self.stopping or self.yields():
            return None
        for tenant in {slot.tenant_id for slot in slots} - self._limited:
            limits = dict.fromkeys(limit for slot in slots if slot.tenant_id == tenant for limit in limits_of(slot))
            if self._may_ride(tenant, limits, len(helds)) and (group := self._riding(tenant, limits)).lanes:
                self._limited.add(tenant)
                group.sent, answer = time.monotonic(), asyncio.get_running_loop().create_future()
                self._keep(self._start_ridden(group, answer))
                return Ride(self._wants(group), self._lease_seconds, helds, partial(self._ridden, group, answer))
        return None

    def _may_ride(self, tenant: int, limits: Collection[LimitKey], freed: int) -> bool:
        """Return whether a lane of this tenant waits only for slots of these limits, of which so many come free, and need not
        compete for them. While there are other replicas, it competes beyond MAX_RIDDEN, so that several share a high limit."""
        parked = [(limit, self._lanes.first_parked(limit)) for limit in limits]
        trying = [(lane.let_out, lane) for lane in self._lanes.waiting(tenant, LOOKED_AT) if lane.let_out in limits]
        return any(
            lane is not None
            and rides(lane.key, limit)
            and (self.alone() or self._places.lane_held(lane.key) - freed < MAX_RIDDEN)
            for limit, lane in parked + trying
        )

    def _riding(self, tenant: int, limits: Collection[LimitKey]) -> Group:
        """Choose the lanes of such a claim, in their turns, as if slots of these limits had come free."""
        for limit in limits:
            self._lanes.let_out(limit)
        group = Group(limited=True, tenant=tenant, rides=True)
        height = level(self._places.open, map(self._places.held, self._lanes.tenants()))
        self._serve(tenant, height, time.monotonic(), group)
        return group

    def _ridden(self, group: Group, answer: "asyncio.Future[Sequence[Claim]]", claims: Sequence[Claim] | None) -> None:
        self._end_turns(group, claims)
        answer.set_result(claims or ())

    async def _start_ridden(self, group: Group, answer: "asyncio.Future[Sequence[Claim]]") -> None:
        claims = await answer
        # the next outcomes are on their way while these calls are started
        await asyncio.sleep(0)
        await self._start_all(group, claims)

    # the loop

    async def tick(self) -> float:
        if time.monotonic() >= self._poll_due():
            await self._poll()
        if strange := self._lanes.strange_queues:
            self._lanes.introduce(strange, await queues.tenants_of(self._core.db, strange))
        return self._start_claims()

    def _poll_due(self) -> float:
        between_rounds = self._polled == FIRST_LANE and not self._any_lane_ready
        return max(self._poll_at, self._round_at) if between_rounds else self._poll_at

    async def _poll(self) -> None:
        """Poll some lanes; a round ends with the last lane."""
        began = time.monotonic()
        if self._polled == FIRST_LANE:
            self._round_at, self._any_lane_ready = began + POLL_SECONDS, False
        found = await tasks.ready_lanes(self._core.db, self._polled, POLL_LANES)
        tenants = {lane.queue_id: lane.tenant_id for lane in found}
        self._lanes.introduce(tenants.keys(), tenants)
        for lane in found:
            if lane.open:
                self._lanes.hint((lane.queue_id, lane.handler_id))
            self._lanes.first_at((lane.queue_id, lane.handler_id), lane.priority, lane.run_at)
        if len(found) == POLL_LANES:
            self._polled = (found[-1].queue_id, found[-1].handler_id)
        else:
            self._polled = FIRST_LANE
            self._lanes.forget()
            for limit in self._lanes.full(TRIED_LIMITS):
                self._lanes.let_out(limit)
        ended = time.monotonic()
        self._poll_at = ended + min(POLL_SECONDS, (ended - began) * (1 / POLL_SHARE - 1))

    def _start_claims(self) -> float:
        """Start claims, in turns by tenant, for lanes with room; return the seconds until the next attempt."""
        now = time.monotonic()
        wait = min(self._poll_due(), self._lanes.try_due(now)) - now
        self._starved = False
        self._claim_size = MAX_CLAIM
        if self._lanes.tenants() and self.yields():
            if now < self._yields_until:
                return max(0.001, min(wait, self._yields_until - now))
            self._yields_until, self._claim_size = now + YIELD_SECONDS, YIELDING_CLAIM
            wait = min(wait, YIELD_SECONDS)
        plain_in, going_on = self._plain_in(now), True
        while going_on and not self.stopping and self._unanswered < MAX_CLAIMS_IN_FLIGHT:
            group = Group(plain_in=plain_in)
            wait = min(wait, self._fill(group, now))
            if going_on := bool(group.lanes):
                self._send(group)
                # what is ready now goes now, even if it takes several claims, except for the rest of one that has all its lanes
                if len(group.lanes) >= MAX_LANES:
                    plain_in = self._plain_in(now)
        return max(0.001, wait)

    def _plain_in(self, now: float) -> float:
        """Return the seconds that lanes without limits wait behind a claim of such lanes."""
        if self._ahead is None or self._lanes.has_waiting(MAX_LANES):
            return 0.0
        return self._ahead.sent + PATIENCE_SECONDS - now

    def _fill(self, group: Group, now: float) -> float:
        """Choose the lanes of a claim, in turns by tenant; return the seconds until there may be more."""
        wait = POLL_SECONDS
        tenants = self._lanes.tenants()
        height = level(self._places.open, map(self._places.held, tenants))
        for tenant in tenants:
            if group.full:
                break
            wait = min(wait, self._serve(tenant, height, now, group))
        return wait

    def _serve(self, tenant: int, height: int, now: float, group: Group) -> float:
        """Add a tenant's lanes that may continue to a claim, in their turns; return the seconds until there may be more.

        `height` is the number of places that tenants reach if the waiting ones share the open places.
        """
        places, wait = self._places, POLL_SECONDS
        held = places.held(tenant)
        share = min(places.room(tenant), max(height - held, reserve(held, places.free)))
        if share <= 0:
            self._starved = True
            return wait
        line = self._lanes.waiting(tenant, LOOKED_AT)
        lane_height = level(places.open_to_lanes(tenant), (places.lane_held(lane.key) for lane in line))
        part = max(1, self._claim_size // min(MAX_LANES, max(len(line), len(self._lanes.tenants()))))
        passed: list[Lane] = []
        for lane in line:
            if group.full:
                break
            if share <= 0:
                self._starved = True
                break
            want = min(share, self._lane_share(lane, lane_height))
            paused = 0.0 if group.rides and lane.busy else self._lanes.paused_until(lane) - now
            if paused > 0 and not (lane.gathering and want >= self.capacity // GATHER_PART):
                wait = min(wait, paused)
                self._starved = self._starved or lane.gathering
            elif want <= 0:
                self._starved = True
            elif not group.rides and (slots := self._gathers_slots(lane, now)) > 0:
                wait = min(wait, slots)
            elif group.plain_in > 0 and not lane.limited:
                wait = min(wait, group.plain_in)
            elif group.takes(lane) and not (lane.limited and tenant in self._limited):
                want = min(want, self._whole_group(lane, part))
                share -= want
                self._lanes.begin(lane)
                places.take(tenant, lane.key, want)
                group.add(lane, want)
                self._lanes.pass_over(passed)
                passed = []
                continue
            passed.append(lane)
        if len(passed) == LOOKED_AT:
            self._lanes.pass_over(passed)
            wait = min(wait, GATHER_SECONDS)
        return wait

    def _whole_group(self, lane: Lane, part: int) -> int:
        """Return how many tasks a lane may want where each may want `part`: at least a group for its handler, unless something else
        goes first."""
        return part if self._claim_size < MAX_CLAIM else max(part, lane.group)

    def _gathers_slots(self, lane: Lane, now: float) -> float:
        """Return the seconds that a lane waits for more slots to come free: many are claimed for little more than one."""
        if lane.let_out is None or lane.held_when_full - self._places.lane_held(lane.key) >= lane.held_when_full // 4:
            return 0.0
        return lane.let_out_at + SLOTS_SECONDS - now

    def _lane_share(self, lane: Lane, height: int) -> int:
        """Return how many places lift the lane to the level of the waiting lanes, at most its room."""
        places, held = self._places, self._places.lane_held(lane.key)
        share = max(height - held, reserve(held, places.room(lane.tenant)))
        return min(share, places.lane_room(lane.tenant, lane.key))

    def _send(self, group: Group) -> None:
        if group.limited:
            self._limited.add(group.tenant)
        else:
            self._ahead = group
        group.sent = time.monotonic()
        self._unanswered += 1
        self._keep(self._claim(group))

    def _keep(self, claiming: Coroutine[Any, Any, None]) -> None:
        """Run this; stopping waits for it."""
        claim = asyncio.get_running_loop().create_task(claiming)
        self._claims.add(claim)
        claim.add_done_callback(self._claims.discard)

    async def _claim(self, group: Group) -> None:
        claims = None
        try:
            claims = await self._core.claiming.claim(self._wants(group), self._lease_seconds)
        except Exception:  # noqa: S110  # logged, and whatever it took is being released
            pass
        finally:
            self._unanswered -= 1
            if self._ahead is group:
                self._ahead = None
        self._end_turns(group, claims)
        await self._start_all(group, claims or ())

    def _wants(self, group: Group) -> list[LaneWant]:
        return [self._lanes.want(lane, want, group.sent) for lane, want in group.lanes]

    def _end_turns(self, group: Group, claims: Sequence[Claim] | None) -> None:
        """End the turns of a claim's lanes; `claims` is None if it failed."""
        if group.limited:
            self._limited.discard(group.tenant)
        found: Sequence[Claim | None] = claims or [None] * len(group.lanes)
        for (lane, want), claim in zip(group.lanes, found, strict=True):
            self._end_turn(lane, want, claim)
        # the next claim is on its way while these calls are started
        self.wake()

    async def _start_all(self, group: Group, claims: Sequence[Claim]) -> None:
        for (lane, _), claim in zip(group.lanes, claims, strict=False):
            if claim.tasks:
                await self._start(lane, claim, group.sent)
        # whatever is reaped lets the lanes continue that it blocked
        await self._core.claiming.reap_lapsed(claims)

    def _end_turn(self, lane: Lane, want: int, claim: Claim | None) -> None:
        """End a lane's turn by its verdict. Without one, it is tried again later."""
        got, full_at = 0, None
        if claim is None:
            self._try_later(lane)
        else:
            got, full_at = len(claim.tasks), self._apply_verdict(lane, claim)
        self._places.leave(lane.tenant, lane.key, want - got)
        if full_at is not None:
            lane.held_when_full = self._places.lane_held(lane.key)
        self._lanes.end(lane, full_at)

    async def _start(self, lane: Lane, claim: Claim, sent: float) -> None:
        try:
            await self._holdings.start(lane.key, claim, sent)
        except Exception:
            # given back
            self._places.leave(lane.tenant, lane.key, len(claim.tasks))
            self._lanes.pause(lane, time.monotonic() + POLL_SECONDS)
            self._lanes.hint(lane.key)

    def _try_later(self, lane: Lane) -> None:
        lane.hinted = True
        self._lanes.pause(lane, time.monotonic() + POLL_SECONDS)

    def _apply_verdict(self, lane: Lane, claim: Claim) -> LimitKey | None:
        """Apply a claim's verdict to the lane and to those parked under the same limit; return the limit it met, if any."""
        now, full_at = time.monotonic(), None
        if claim.verdict == "busy":
            lane.hinted = True
            self._lanes.pause(lane, now + BUSY_SECONDS * 2**lane.busy * (0.5 + random.random()))
            lane.busy = min(lane.busy + 1, MAX_DOUBLINGS)
            return None
        lane.busy, lane.limited, lane.group = 0, claim.limited, claim.group or 1
        self._lanes.scanned(lane, claim.priority, claim.since, now)
        if claim.verdict == "ok":
            lane.hinted, lane.gathering = True, True
            self._lanes.pause(lane, now + GATHER_SECONDS)
        elif claim.verdict == "full":
            ids = {"tenant": lane.tenant, "handler": claim.handler_id, "queue": lane.key[0], FLOWS: lane.tenant}
            full_at = (claim.full_at, ids[claim.full_at])
            if claim.wait_seconds is not None:
                self._lanes.try_at(full_at, now + claim.wait_seconds)
            if claim.full_at == "handler" and claim.period is not None:
                self._core.calls.found_full(claim.handler_id, claim.period)
        elif claim.verdict in CLOSED:
            full_at = ("handler", claim.handler_id)
            if claim.opens_in is not None:
                self._lanes.try_at(full_at, now + claim.opens_in)
        elif claim.verdict == "forming" and claim.forms_in is not None:
            self._let_form(lane, claim.forms_in, now)
        elif claim.verdict in SHUT:
            self._lanes.pause(lane, now + POLL_SECONDS)
        if lane.let_out is not None and lane.let_out != full_at:
            self._lanes.let_out(lane.let_out)
        lane.let_out = None
        return full_at

    def _let_form(self, lane: Lane, seconds: float, now: float) -> None:
        """Leave the lane's next group to form; hint the lane when it need not wait any longer. More tasks hint it as well."""
        self._lanes.pause(lane, now + min(seconds, FORMING_SECONDS))
        if not lane.forming:
            lane.forming = True
            asyncio.get_running_loop().call_later(seconds, self._formed, lane)

    def _formed(self, lane: Lane) -> None:
        lane.forming = False
        self.hint(*lane.key)

    async def stop(self) -> None:
        """Stop claiming, and wait for the claims in flight."""
        self.stopping = True
        while self._claims:
            await asyncio.wait(self._claims)
