"""Allowances: how much of something each tenant may use, a burst at once and a rate lastingly.

What a use costs is known only when it is over, so it is taken then and may run into debt; whoever is in debt waits until the
rate has paid for it (a token bucket with overdraft; Turner, New directions in communications, 1986).
"""

from collections.abc import Hashable

MAX_KNOWN = 10_000
"""Tenants with less than their whole burst; beyond it those that are whole again are forgotten."""


class Allowance:
    """In seconds of processor time. `now` is monotonic seconds."""

    def __init__(self, *, rate: float, burst: float) -> None:
        """`rate` is what comes back per second."""
        self._rate = rate
        self._burst = burst
        self._left: dict[Hashable, tuple[float, float]] = {}
        """By tenant: what was left, and when."""

    def __str__(self) -> str:
        return f"{self._burst:g} seconds in a burst, {self._rate:g} per second sustained"

    def left(self, tenant: Hashable, now: float) -> float:
        """Negative when in debt."""
        left, at = self._left.get(tenant, (self._burst, now))
        return min(self._burst, left + (now - at) * self._rate)

    def wait_seconds(self, tenant: Hashable, now: float) -> float:
        """Until something is left again; 0 if it is now."""
        return max(0.0, -self.left(tenant, now) / self._rate)

    def take(self, tenant: Hashable, amount: float, now: float) -> None:
        self._left[tenant] = (self.left(tenant, now) - amount, now)
        if len(self._left) > MAX_KNOWN:
            self._left = {known: entry for known, entry in self._left.items() if self.left(known, now) < self._burst}
