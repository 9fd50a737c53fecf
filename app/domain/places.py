"""Places: how the calls a replica may have under way are shared, by tenants first and then by the lanes of each.

A call cannot be taken back: a handler that hangs keeps its place until its timeout. So nobody may ever take the last of the
places, whatever others do with theirs. The tenants of a replica share all of its places by these rules, and the lanes of a
tenant those that the tenant holds and may take at the moment:

- A part of the places is kept. What is free beyond it is open to all, and goes to those that hold the fewest, up to a common
  level: max-min fairness (Bertsekas and Gallager, Data Networks, 1992, 6.5.2). A lane alone leaves a quarter to others.
- Of what is kept, a holder may have at most a third of what it leaves free, and one place if it holds none: dynamic thresholds
  (Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998) with factor 1/3. Whoever already holds more, as one who
  took all that was open does, gets nothing of it, and the last six go only to those that hold none.

Of 1,000 places a tenant alone takes 875. Those that come after it, should its calls never end, get 31, 23, 18, 13, 10 …
"""

from collections import Counter
from collections.abc import Hashable, Iterable

TENANTS_KEPT = 8
"""An eighth of a replica's places is kept, for tenants that hold few or none of them."""
LANES_KEPT = 16
"""A sixteenth of a tenant's, for its lanes."""
LANE_MOST = 0.75
THRESHOLD = 3


def kept(places: int, part: int) -> int:
    """How many of so many places are kept; of a single one, none."""
    return -(-places // part) if places > 1 else 0


def reserve(held: int, free: int) -> int:
    """How many more a holder may take of what is free, whether it is kept or open."""
    if held == 0 and free > 0:
        return max(1, free // (THRESHOLD + 1))
    return max(0, (free - THRESHOLD * held) // (THRESHOLD + 1))


def level(free: int, held: Iterable[int]) -> int:
    """The height to which so many more places raise those that hold the fewest; rounded up."""
    height, total = 0, free
    for count, each in enumerate(sorted(held)):
        if count and each * count >= total:
            break
        total += each
        height = -(-total // (count + 1))
    return height


class Places:
    """What each tenant and each lane holds, claims under way included. Tenants and lanes are any values; a lane has one tenant."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.taken = 0
        self._tenants: Counter[Hashable] = Counter()
        self._lanes: Counter[Hashable] = Counter()

    def take(self, tenant: Hashable, lane: Hashable, count: int) -> None:
        self.taken += count
        self._tenants[tenant] += count
        self._lanes[lane] += count

    def leave(self, tenant: Hashable, lane: Hashable, count: int) -> None:
        self.taken -= count
        for holders, holder in ((self._tenants, tenant), (self._lanes, lane)):
            holders[holder] -= count
            if not holders[holder]:
                del holders[holder]

    def held(self, tenant: Hashable) -> int:
        return self._tenants[tenant]

    def lane_held(self, lane: Hashable) -> int:
        return self._lanes[lane]

    @property
    def free(self) -> int:
        return self.places - self.taken

    @property
    def open(self) -> int:
        """How many are free beyond those that are kept; below nought where some of these are taken."""
        return self.free - kept(self.places, TENANTS_KEPT)

    def room(self, tenant: Hashable) -> int:
        """How many more the tenant may take."""
        return max(self.open, reserve(self.held(tenant), self.free))

    def open_to_lanes(self, tenant: Hashable) -> int:
        """How many of its room are open to all lanes of the tenant."""
        room = self.room(tenant)
        return room - kept(self.held(tenant) + room, LANES_KEPT)

    def lane_room(self, tenant: Hashable, lane: Hashable) -> int:
        """How many more the lane may take."""
        room, held = self.room(tenant), self.lane_held(lane)
        most = int(LANE_MOST * (self.held(tenant) + room))
        return max(min(self.open_to_lanes(tenant), most - held), reserve(held, room))
