"""How long retries wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.backoff import Backoff


def delays(backoff: Backoff, count: int, jitter: float = 0.0) -> list[float]:
    return [backoff.delay_after(attempt, jitter) for attempt in range(1, count + 1)]


@pytest.mark.parametrize(
    ("backoff", "jitter", "expected"),
    [
        (Backoff(jitter="none"), 0.9, [1, 2, 4, 8, 16]),
        (Backoff(jitter="none", min_seconds=10, max_seconds=50), 0.9, [10, 20, 40, 50, 50]),
        (Backoff(jitter="none", factor=1, min_seconds=3), 0.9, [3, 3, 3]),
        (Backoff(jitter="full"), 0.0, [0, 0, 0]),
        (Backoff(jitter="full"), 0.5, [0.5, 1, 2]),
        (Backoff(jitter="equal"), 0.0, [0.5, 1, 2]),
        (Backoff(jitter="equal"), 0.5, [0.75, 1.5, 3]),
        (Backoff("fixed", seconds=5.0), 0.5, [5, 5, 5]),
        (Backoff("list", seconds=(1.0, 5.0, 30.0)), 0.5, [1, 5, 30, 30, 30]),
        # A task's own min above its queue's max: the max holds.
        (Backoff(jitter="none", min_seconds=7200), 0.5, [3600, 3600]),
        (Backoff(jitter="none", min_seconds=0), 0.5, [0, 0]),
    ],
)
def test_delays(backoff: Backoff, jitter: float, expected: list[float]) -> None:
    assert delays(backoff, len(expected), jitter) == expected


def test_a_million_attempts_overflow_nothing() -> None:
    assert Backoff(jitter="none").delay_after(10**6, 0) == 3600
    assert Backoff(jitter="none", factor=100, max_seconds=2592000).delay_after(10**6, 0) == 2592000
    assert Backoff("list", seconds=(1.0, 2.0)).delay_after(10**6, 0) == 2


@given(
    st.floats(0, 2_592_000),
    st.floats(0, 2_592_000),
    st.floats(1, 100),
    st.sampled_from(["full", "equal", "none"]),
    st.integers(1, 10**6),
    st.floats(0, 1, exclude_max=True),
)
def test_a_delay_lies_between_nothing_and_the_maximum(
    low: float, high: float, factor: float, jitter: str, attempt: int, draw: float
) -> None:
    backoff = Backoff(min_seconds=low, max_seconds=high, factor=factor, jitter=jitter)  # type: ignore[arg-type]
    delay = backoff.delay_after(attempt, draw)
    assert 0 <= delay <= high
    if jitter == "equal":
        assert (
            delay
            >= Backoff(min_seconds=low, max_seconds=high, factor=factor, jitter="none").delay_after(attempt, 0) / 2
        )
