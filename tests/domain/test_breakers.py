"""The breaker and the adaptive limit as the tables they are."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.domain.answers import Answer, NoAnswer, NoAnswerOutcome
from app.domain.breakers import (
    Adaptive,
    Breaker,
    Guard,
    Health,
    Seen,
    advance,
    call_of,
    closed,
    effective,
    fitted,
    judge_probe,
    look_at,
    opened,
)
from app.domain.histograms import BUCKETS, bucket_of

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
BREAKER = Breaker(min_calls=10, failure_percent=50, open_seconds=10, open_max_seconds=35)
GUARD = Guard(BREAKER, None, 100)
NOTHING = Seen()


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("answer", "call"),
    [
        (200, "ok"),
        (302, "ok"),
        (400, "ok"),
        (404, "ok"),
        (410, "ok"),
        (429, "pushed_back"),
        (503, "pushed_back"),
        (500, "failed"),
        (502, "failed"),
        (599, "failed"),
        ("timeout", "failed"),
        ("unreachable", "failed"),
        ("too_large", None),
        ("egress_denied", None),
        ("failed", None),
    ],
)
def test_each_answer_says_something_about_the_service_or_nothing(answer: Any, call: str | None) -> None:
    given = NoAnswer(cast(NoAnswerOutcome, answer), "why") if isinstance(answer, str) else Answer(answer, {}, b"")
    assert call_of(given) == call


@pytest.mark.parametrize(
    ("calls", "failures", "opens"),
    [
        (9, 9, False),
        (10, 4, False),
        (10, 5, True),
        (10, 10, True),
        (1000, 499, False),
        (1000, 500, True),
        (0, 0, False),
    ],
)
def test_it_opens_at_a_share_of_failures_among_enough_calls(calls: int, failures: int, opens: bool) -> None:
    found = advance(Health(), GUARD, Seen(calls=calls, failures=failures, running=7), NOW)
    assert found.state == ("open" if opens else "closed")
    if opens:
        assert (effective(found), look_at(found), found.period, found.ceiling) == (0, after(10), 1, 7)
    else:
        assert found == Health()


def test_an_open_one_lets_a_probe_through_once_its_time_has_come() -> None:
    shut = opened(Health(), NOW, seconds=10, running=3)
    assert advance(shut, GUARD, NOTHING, after(9.999)) == shut
    probing = advance(shut, GUARD, NOTHING, after(10))
    assert (probing.state, effective(probing), look_at(probing), probing.period) == ("half_open", 1, None, 2)
    assert advance(probing, GUARD, Seen(calls=100, failures=100), after(99)) == probing, "only its probe is judged"


def test_one_that_was_opened_by_hand_stays_open() -> None:
    shut = opened(Health(), NOW, seconds=None, running=3)
    assert (effective(shut), look_at(shut)) == (0, None)
    assert advance(shut, GUARD, Seen(calls=100), after(1e6)) == shut


def test_each_failed_probe_doubles_the_time_up_to_its_most_and_a_success_begins_again() -> None:
    found, at, lengths = opened(Health(), NOW, seconds=10, running=3), NOW, []
    for _ in range(4):
        at = look_at(found) or at
        found = advance(found, GUARD, NOTHING, at)
        found = judge_probe(found, GUARD, NOTHING, at, period=found.period, ok=False)
        lengths.append(((look_at(found) or at) - at).total_seconds())
    assert lengths == [20, 35, 35, 35]
    at = look_at(found) or at
    found = advance(found, GUARD, NOTHING, at)
    found = judge_probe(found, GUARD, NOTHING, at, period=found.period, ok=True)
    found = advance(found, GUARD, Seen(calls=10, failures=10), at)
    assert look_at(found) == at + timedelta(seconds=10)


@pytest.mark.parametrize("ok", [True, False])
def test_a_probe_of_another_period_proves_nothing(ok: bool) -> None:
    probing = advance(opened(Health(), NOW, seconds=1, running=3), GUARD, NOTHING, after(1))
    for health in (Health(period=probing.period), probing):
        assert judge_probe(health, GUARD, NOTHING, after(2), period=1, ok=ok) == health


@pytest.mark.parametrize(
    ("most", "limit", "ran", "steps"),
    [
        (100, None, 7, [10, 20, 40, 80, None]),
        (5, None, 7, [1, 2, 4, None]),
        (1, None, 7, [None]),
        (None, None, 30, [3, 6, 12, 24, None]),
        (None, None, 0, [None]),
        (100, 20, 7, [2, 4, 8, 16, 20]),
    ],
)
def test_a_slow_start_doubles_each_second(most: int | None, limit: int | None, ran: int, steps: list[Any]) -> None:
    guard = Guard(BREAKER, None if limit is None else Adaptive(), most)
    found = closed(opened(Health(limit=limit), NOW, seconds=1, running=ran), guard, NOW)
    for second, step in enumerate(steps):
        found = advance(found, guard, NOTHING, after(second))
        assert effective(found) == step
    assert found.ramp is None and look_at(found) is None


def test_a_slow_start_that_nobody_looked_at_catches_up() -> None:
    found = closed(opened(Health(), NOW, seconds=1, running=7), GUARD, NOW)
    assert effective(advance(found, GUARD, NOTHING, after(2.5))) == 40
    assert effective(advance(found, GUARD, NOTHING, after(1e5))) is None


def durations(*seconds: float) -> tuple[int, ...]:
    histogram = [0] * BUCKETS
    for one in seconds:
        histogram[bucket_of(one)] += 1
    return tuple(histogram)


@pytest.mark.parametrize(
    ("limit", "seen", "then"),
    [
        (50, Seen(new_calls=9, new_pushed_back=1, running=50), 35),
        (50, Seen(new_calls=9, running=40), 52),
        (50, Seen(new_calls=9, running=39), 50),
        (50, Seen(new_calls=9, running=3, new_full=True), 52),
        (5, Seen(new_calls=9, running=5), 6),
        (100, Seen(new_calls=9, running=100), 100),
        (3, Seen(new_calls=9, new_pushed_back=9), 3),
        (50, Seen(new_calls=100, running=50, new_durations=durations(*[0.1] * 90, *[3.0] * 10)), 35),
        (50, Seen(new_calls=100, running=50, new_durations=durations(*[0.1] * 97, *[3.0] * 3)), 52),
        (50, Seen(), 50),
    ],
)
def test_an_adaptive_limit_falls_by_a_third_and_rises_by_a_twentieth(limit: int, seen: Seen, then: int) -> None:
    guard = Guard(None, Adaptive(min=3, target_seconds=1), 100)
    seen = Seen(**{name: getattr(seen, name) for name in Seen.__slots__} | {"last_second": 1000})
    found = advance(Health(limit=limit, judged=999), guard, seen, NOW)
    assert effective(found) == then
    assert advance(found, guard, seen, NOW) == found, "each second is judged once"


def test_an_adaptive_limit_does_not_rise_in_a_slow_start() -> None:
    guard = Guard(BREAKER, Adaptive(), 100)
    found = replace(closed(opened(Health(limit=40), NOW, seconds=1, running=7), guard, NOW), judged=1)
    assert advance(found, guard, Seen(new_calls=5, new_full=True, last_second=9), NOW).limit == 40
    assert advance(found, guard, Seen(new_calls=5, new_pushed_back=1, last_second=9), NOW).limit == 28


@pytest.mark.parametrize(
    ("health", "guard", "limit"),
    [
        (Health(), Guard(None, Adaptive(), 8), 8),
        (Health(limit=50), Guard(None, Adaptive(), 8), 8),
        (Health(limit=2), Guard(None, Adaptive(min=4), 8), 4),
        (Health(limit=2), Guard(BREAKER, None, 8), None),
        (opened(Health(), NOW, seconds=None, running=1), Guard(None, Adaptive(), 8), 8),
        (opened(Health(), NOW, seconds=None, running=1), Guard(BREAKER, Adaptive(), 8), 0),
    ],
)
def test_a_changed_definition_ends_what_it_no_longer_asks_for(health: Health, guard: Guard, limit: int | None) -> None:
    assert effective(fitted(health, guard, NOW)) == limit


@given(
    st.lists(
        st.tuples(
            st.floats(0.0, 50.0),
            st.integers(0, 30),
            st.integers(0, 30),
            st.booleans(),
            st.sampled_from(["look", "probe", "failed probe", "open", "close"]),
        )
    )
)
def test_whatever_happens_it_admits_nothing_while_open_and_one_while_half_open(steps: list[Any]) -> None:
    guard, health, at = Guard(BREAKER, Adaptive(min=2), 40), Health(limit=40), NOW
    for second, (wait, calls, failures, full, what) in enumerate(steps):
        before, at = health, at + timedelta(seconds=wait)
        seen = Seen(calls, min(calls, failures), 1, calls, failures, full, (), second + 1)
        if what == "look":
            health = advance(health, guard, seen, at)
        elif "probe" in what:
            health = judge_probe(health, guard, seen, at, period=health.period, ok=what == "probe")
        else:
            health = opened(health, at, seconds=None, running=1) if what == "open" else closed(health, guard, at)
        limit = effective(health)
        assert limit == {"open": 0, "half_open": 1}.get(health.state, limit)
        assert health.state != "closed" or limit is None or 1 <= limit <= 40
        assert health.limit is not None and 2 <= health.limit <= 40
        assert health.period >= before.period
        assert health.period > before.period or health.state == before.state
