"""A cache shared by tenants: one tenant's entries never evict those of another, unless that one has more.

When it is full, the tenant whose entries weigh most loses its least recently used entry (max-min fairness, as in turns). So a
tenant with many keys evicts only its own.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class FairCache(Generic[K, V]):
    """A fair LRU cache; `max_weight` bounds the total weight of its entries."""

    def __init__(self, *, max_weight: int) -> None:
        self._max_weight = max_weight
        self._kept: dict[Hashable, OrderedDict[K, tuple[V, int]]] = {}
        self._weights: dict[Hashable, int] = {}
        self._weight = 0

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    def get(self, tenant: Hashable, key: K) -> V | None:
        """Return the value or None; this counts as a use."""
        kept = self._kept.get(tenant)
        if kept is None or key not in kept:
            return None
        kept.move_to_end(key)
        return kept[key][0]

    def put(self, tenant: Hashable, key: K, value: V, weight: int = 1) -> None:
        self.forget(tenant, key)
        self._kept.setdefault(tenant, OrderedDict())[key] = (value, weight)
        self._add(tenant, weight)
        while self._weight > self._max_weight:
            heaviest = max(self._weights, key=self._weights.__getitem__)
            self.forget(heaviest, next(iter(self._kept[heaviest])))

    def forget(self, tenant: Hashable, key: K) -> None:
        kept = self._kept.get(tenant)
        if kept is not None and key in kept:
            self._add(tenant, -kept.pop(key)[1])
            if not kept:
                del self._kept[tenant], self._weights[tenant]

    def forget_all(self, tenant: Hashable) -> None:
        self._kept.pop(tenant, None)
        self._weight -= self._weights.pop(tenant, 0)

    def _add(self, tenant: Hashable, weight: int) -> None:
        self._weights[tenant] = self._weights.get(tenant, 0) + weight
        self._weight += weight
