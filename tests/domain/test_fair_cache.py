"""Caches that tenants share: what one keeps is safe from the crowd of another."""

import pytest

from app.domain.fair_cache import FairCache


@pytest.fixture
def cache() -> FairCache[str, int]:
    return FairCache(max_weight=10)


def test_a_tenant_alone_may_keep_all_and_loses_what_it_used_least_lately(cache: FairCache[str, int]) -> None:
    for n in range(10):
        cache.put("A", str(n), n)
    assert len(cache) == 10 and cache.get("A", "0") == 0
    cache.put("A", "new", 10)
    assert (cache.get("A", "0"), cache.get("A", "1"), len(cache)) == (0, None, 10)


def test_a_crowd_of_one_tenant_drives_out_nothing_of_another(cache: FairCache[str, int]) -> None:
    for n in range(3):
        cache.put("B", str(n), n)
    for n in range(1_000):
        cache.put("A", str(n), n)
    assert [cache.get("B", str(n)) for n in range(3)] == [0, 1, 2]
    assert cache.get("A", "999") == 999 and len(cache) == 10


def test_tenants_that_want_more_than_there_is_come_to_keep_equally_much(cache: FairCache[str, int]) -> None:
    for n in range(100):
        cache.put("A", str(n), n)
    for n in range(100):
        cache.put("B", str(n), n)
    kept = [sum(cache.get(tenant, str(n)) is not None for n in range(100)) for tenant in "AB"]
    assert kept == [5, 5]


def test_weights_count_and_a_replaced_entry_weighs_once(cache: FairCache[str, int]) -> None:
    cache.put("A", "heavy", 1, 8)
    cache.put("A", "heavy", 2, 8)
    cache.put("A", "light", 3, 2)
    assert (cache.get("A", "heavy"), cache.get("A", "light")) == (2, 3)
    cache.put("A", "light", 4, 3)
    assert (cache.get("A", "heavy"), cache.get("A", "light")) == (None, 4)


def test_what_is_heavier_than_all_there_is_is_not_kept(cache: FairCache[str, int]) -> None:
    cache.put("B", "b", 1)
    cache.put("A", "a", 2, 11)
    assert (cache.get("A", "a"), cache.get("B", "b"), len(cache)) == (None, 1, 1)


def test_what_is_forgotten_leaves_nothing(cache: FairCache[str, int]) -> None:
    cache.put("A", "a", 1)
    cache.forget("A", "a")
    cache.forget("A", "a")
    cache.forget("B", "a")
    cache.put("A", "a", 1, 3)
    cache.put("A", "b", 1, 4)
    cache.forget_all("A")
    cache.forget_all("B")
    assert len(cache) == 0 and not cache._kept and not cache._weights and not cache._weight
