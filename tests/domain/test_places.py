"""How places are shared by those who never give them back, and by those who do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.places import Places, level


def take_all(places: Places, tenant: object, lane: object) -> int:
    """All that the lane may have, taken bit by bit; how many that is."""
    while (room := places.lane_room(tenant, lane)) > 0:
        places.take(tenant, lane, -(-room // 3))
    return places.lane_held(lane)


def hang(places: Places, tenant: object, lanes: int) -> int:
    """Take what so many lanes of a tenant may have, one after the other; how many that is."""
    for number in range(lanes):
        take_all(places, tenant, (tenant, number))
    return places.held(tenant)


def test_a_tenant_alone_has_seven_eighths_of_the_places_and_a_lane_alone_three_quarters_of_these() -> None:
    places = Places(1000)
    assert take_all(places, "a", 1) == 656
    assert take_all(places, "a", 2) == 164
    assert hang(places, "a", 40) == 875


def test_tenants_that_come_one_after_another_with_a_dozen_lanes_each_all_find_places() -> None:
    places = Places(1000)
    first, *others = [hang(places, tenant, 12) for tenant in range(10)]
    assert first > 860
    assert others[0] > 30 and min(others) >= 3
    assert others == sorted(others, reverse=True)
    places = Places(80)
    assert all(hang(places, tenant, 12) for tenant in range(9))


def test_thousands_of_lanes_of_one_tenant_take_no_more_than_its_part() -> None:
    places = Places(1000)
    assert hang(places, "a", 5000) == 875
    assert places.room("a") == 0
    assert places.room("b") == 31


@given(
    st.integers(2, 2000),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(1, 400), st.booleans()), max_size=60),
)
def test_no_more_than_all_are_taken_and_who_holds_any_never_takes_the_last(
    count: int, steps: list[tuple[int, int, int, bool]]
) -> None:
    places = Places(count)
    for tenant, number, most, leaving in steps:
        lane = (tenant, number)
        held = places.lane_held(lane)
        if leaving:
            places.leave(tenant, lane, min(held, most))
        else:
            newcomer = places.held(tenant) == 0
            want = min(most, places.lane_room(tenant, lane))
            places.take(tenant, lane, max(0, want))
            assert newcomer or want <= 0 or places.free > 0
        assert 0 <= places.taken <= count
        assert places.taken == sum(places.held(each) for each in range(6))


@given(st.integers(10, 2000), st.integers(0, 30))
def test_a_tenant_that_holds_none_finds_a_place_whatever_one_other_holds(count: int, lanes: int) -> None:
    places = Places(count)
    hang(places, "a", lanes)
    assert places.room("b") >= 1
    assert places.lane_room("b", "its lane") >= 1


@pytest.mark.parametrize(
    ("free", "held", "expected"),
    [
        (10, [], 0),
        (10, [3], 13),
        (10, [0, 0], 5),
        (10, [0, 0, 100], 5),
        (5, [0, 0, 0], 2),
        (100, [0, 50, 200], 75),
        (0, [4, 9], 4),
    ],
)
def test_what_is_open_raises_those_that_hold_the_fewest(free: int, held: list[int], expected: int) -> None:
    assert level(free, held) == expected
