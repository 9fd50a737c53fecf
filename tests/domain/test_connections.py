"""A replica's connections: the sum is what was asked for, every use has its own, and no tenant has all of any."""

import pytest

from app.domain.connections import (
    DEFAULT_CONNECTIONS,
    MAX_CONNECTIONS,
    MIN_CONNECTIONS,
    Limit,
    NoRoom,
    fit,
    share,
    split,
)

TOTALS = [*range(MIN_CONNECTIONS, 200), MAX_CONNECTIONS]


@pytest.mark.parametrize("total", TOTALS)
def test_the_parts_are_the_whole_and_none_is_all_of_one_tenant(total: int) -> None:
    parts = split(total)
    assert parts.total == parts.wanted == total
    for places in (parts.reads, parts.definitions):
        assert 1 <= share(places) < places
    assert parts.lookups >= 1 and parts.changes >= 1
    if total >= 10:
        assert parts.work - parts.lookups - parts.changes >= 2, "enqueues, claims and settles have some of their own"


def test_the_default_is_split_as_the_documentation_says() -> None:
    parts = split(DEFAULT_CONNECTIONS)
    assert (parts.work, parts.reads, parts.definitions, parts.listening, parts.chores) == (11, 4, 3, 1, 1)
    assert (parts.lookups, parts.changes) == (3, 3)
    assert [share(places) for places in (1, 2, 3, 4, 5)] == [1, 1, 2, 2, 3]


def test_fewer_than_the_least_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        split(MIN_CONNECTIONS - 1)


def test_a_replica_takes_what_it_wants_or_else_what_the_tightest_limit_leaves() -> None:
    roomy, tight = Limit(97, 3, "raise max_connections"), Limit(30, 18, "raise the role's limit")
    assert fit(12, [roomy, tight]) == split(12)
    assert fit(20, [roomy, tight]) == split(12, wanted=20)
    assert fit(20, [roomy]).total == 20


def test_with_less_than_the_least_a_sentence_says_what_to_change() -> None:
    with pytest.raises(NoRoom) as refused:
        fit(20, [Limit(97, 3, "raise max_connections"), Limit(17, 10, "raise the role's limit")])
    assert str(refused.value) == (
        "The database has 7 connections left for this replica, which needs at least 8: raise the role's limit, or lower "
        "SLUICE_DATABASE_CONNECTIONS on the replicas (20 here)."
    )
    with pytest.raises(NoRoom, match="has 0 connections left"):
        fit(20, [Limit(17, 25, "raise it")])
