"""Places: how a replica's concurrent calls are shared, first between tenants and then between the lanes of each tenant.

A call cannot be taken back: a handler that hangs keeps its place until its timeout. So nobody may ever take the last places,
whatever others do with theirs. The tenants of a replica share all of its places by these rules, and the lanes of a tenant share
the places that the tenant holds or may take at the moment:

- Some of the places are reserved. Free places beyond them are open to all and go to those that hold the fewest, up to a common
level: max-min fairness (Bertsekas and Gallager, Data Networks, 1992, 6.5.2). A single lane leaves a quarter to others.
- Of the reserved places, a holder may have at most a third of what it leaves free, and one place if it holds none: dynamic
thresholds (Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998) with factor 1/3. A holder with more than that,
such as one that took all open places, gets none of them, and the last six go only to those that hold none.

Of 1,000 places, a tenant alone takes 875. If its calls never end, the tenants that come after it get 31, 23, 18, 13, 10 …
"""

from collections import Counter
from collections.abc import Hashable, Iterable

TENANTS_KEPT = 8
"""One in eight of a replica's places is reserved for tenants that hold few or none."""
LANES_KEPT = 16
"""One in sixteen of a tenant's places is reserved for its lanes that hold few or none."""
LANE_MOST = 0.75
THRESHOLD = 3


def kept(places: int, part: int) -> int:
    """Return how many of `places` are reserved: one in `part`, rounded up; none of a single place."""
    return -(-places // part) if places > 1 else 0


def reserve(held: int, free: int) -> int:
    """Return how many more places a holder may take of those that are free, reserved ones included."""
    if held == 0 and free > 0:
        return max(1, free // (THRESHOLD + 1))
    return max(0, (free - THRESHOLD * held) // (THRESHOLD + 1))


def level(free: int, held: Iterable[int]) -> int:
    """Return the level to which `free` more places raise those that hold the fewest; rounded up."""
    height, total = 0, free
    for count, each in enumerate(sorted(held)):
        if count and each * count >= total:
            break
        total += each
        height = -(-total // (count + 1))
    return height


class Places:
    """What each tenant and each lane holds, including claims in progress. A lane belongs to one tenant."""

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
        """How many places are free beyond the reserved ones; negative when some of those are taken."""
        return self.free - kept(self.places, TENANTS_KEPT)

    def room(self, tenant: Hashable) -> int:
        """Return how many more places the tenant may take."""
        return max(self.open, reserve(self.held(tenant), self.free))

    def open_to_lanes(self, tenant: Hashable) -> int:
        """Return how many places of the tenant's room are open to all of its lanes."""
        room = self.room(tenant)
        return room - kept(self.held(tenant) + room, LANES_KEPT)

    def lane_room(self, tenant: Hashable, lane: Hashable) -> int:
        """Return how many more places the lane may take."""
        room, held = self.room(tenant), self.lane_held(lane)
        most = int(LANE_MOST * (self.held(tenant) + room))
        return max(min(self.open_to_lanes(tenant), most - held), reserve(held, room))
