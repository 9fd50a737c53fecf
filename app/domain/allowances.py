"""Allowances: how much of a resource each tenant may use, as a burst and a sustained rate.

The cost of a use is known only afterwards, so it is charged then and may put the tenant in debt. A tenant in debt waits until
the rate has paid it off (a token bucket with overdraft; Turner, New directions in communications, 1986).
"""

from collections.abc import Hashable

MAX_KNOWN = 10_000
"""How many tenants with a partly used burst are remembered before those with a full one again are dropped."""


class Allowance:
    """An allowance per tenant, in seconds of processor time. `now` is monotonic seconds throughout."""

    def __init__(self, *, rate: float, burst: float) -> None:
        """Let each tenant use `burst` at once; `rate` of it comes back per second."""
        self._rate = rate
        self._burst = burst
        self._left: dict[Hashable, tuple[float, float]] = {}
        """Tenant -> (what was left, when)."""

    def __str__(self) -> str:
        return f"{self._burst:g} seconds in a burst, {self._rate:g} per second sustained"

    def left(self, tenant: Hashable, now: float) -> float:
        """Return what the tenant has left; negative when in debt."""
        left, at = self._left.get(tenant, (self._burst, now))
        return min(self._burst, left + (now - at) * self._rate)

    def wait_seconds(self, tenant: Hashable, now: float) -> float:
        """Return the seconds until the tenant is out of debt; 0 if it is now."""
        return max(0.0, -self.left(tenant, now) / self._rate)

    def take(self, tenant: Hashable, amount: float, now: float) -> None:
        self._left[tenant] = (self.left(tenant, now) - amount, now)
        if len(self._left) > MAX_KNOWN:
            self._left = {known: entry for known, entry in self._left.items() if self.left(known, now) < self._burst}
