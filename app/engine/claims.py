"""What one claim takes: the lanes of one statement, which may also write outcomes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from app.engine.held import Held, SlotState
from app.engine.lanes import Lane, LaneKey, LimitKey
from app.store.tasks import Claim, LaneWant

MAX_CLAIM = 400
"""How many tasks one claim takes at most."""
MAX_LANES = 32
"""How many lanes one claim takes: more would hardly cost less per lane, and a claim holds up to three locks per lane."""


@dataclass(slots=True)
class Group:
    """The lanes of one claim, each with how many tasks it wants.

    Lanes without limits share a claim, whoever's they are. Lanes under limits are claimed apart, with others of their tenant: they
    take longer, and while one claim holds the rows of their limits, another would only find them busy.
    """

    lanes: list[tuple[Lane, int]] = field(default_factory=list)
    limited: bool = False
    tenant: int = 0
    """Of the first lane."""
    rides: bool = False
    """It goes with the writing of outcomes, so it waits for no other slots than these free."""
    wanted: int = 0
    plain_in: float = 0.0
    """In how many seconds lanes without limits may be claimed: until then they wait behind a claim of such lanes."""
    sent: float = 0.0
    """When it was sent, in monotonic seconds: its leases are counted from then."""

    @property
    def full(self) -> bool:
        return len(self.lanes) >= MAX_LANES or self.wanted >= MAX_CLAIM

    def takes(self, lane: Lane) -> bool:
        return not self.tenant or (lane.limited == self.limited and (not lane.limited or lane.tenant == self.tenant))

    def add(self, lane: Lane, want: int) -> None:
        if not self.tenant:
            self.limited, self.tenant = lane.limited, lane.tenant
        self.lanes.append((lane, want))
        self.wanted += want


@dataclass(frozen=True, slots=True)
class Ride:
    """A claim that goes with the writing of outcomes: a Rider of runtime/signals.py."""

    wants: Sequence[LaneWant]
    lease_seconds: float
    helds: Sequence[Held]
    """The leases that these outcomes end, as far as they occupy slots of limits."""
    ended: Callable[[Sequence[Claim] | None], None]

    def answered(self, claims: Sequence[Claim] | None) -> None:
        for want, claim in zip(self.wants, claims or (), strict=False):
            helds = [held for held in self.helds if held.lane == (want.queue_id, want.handler_id)]
            if len(claim.tasks) >= len(helds):
                _pass_on(helds, "taken")
            elif claim.verdict == "busy":
                _pass_on(helds, "contested")
        self.ended(claims)


def _pass_on(helds: Sequence[Held], slot_is: SlotState) -> None:
    for held in helds:
        held.slot_is = slot_is


def rides(lane: LaneKey, limit: LimitKey | None) -> bool:
    """Return whether a lane that waits for slots of this limit may be claimed with the writing of outcomes that free some.

    That is if only dispatchers wait for them: slots of a handler, or of a queue that has one. Under a tenant's limit, a worker may
    wait at another replica, and would never find a free slot if each were taken at once.
    """
    if limit is None:
        return False
    level, _ = limit
    return level == "handler" or (level == "queue" and lane[1] == 0)
