import random

import pytest

from app.domain.histograms import BUCKETS, bucket_of, percentile, summed, trimmed


def histogram_of(values: list[float]) -> list[int]:
    counts = [0] * BUCKETS
    for value in values:
        counts[bucket_of(value)] += 1
    return counts


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1e-9, 0.001])
def test_the_first_bucket_holds_all_that_is_short(seconds: float) -> None:
    assert bucket_of(seconds) == 0


@pytest.mark.parametrize("seconds", [1e6, 1e300, float("inf")])
def test_the_last_bucket_holds_all_that_is_long(seconds: float) -> None:
    assert bucket_of(min(seconds, 1e300)) == BUCKETS - 1


def test_buckets_only_rise_with_the_duration() -> None:
    buckets = [bucket_of(0.0005 * 1.01**n) for n in range(2200)]
    assert buckets == sorted(buckets)
    assert set(buckets) == set(range(BUCKETS))


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("typical", [0.004, 0.3, 45.0, 20_000.0])
def test_a_percentile_is_off_by_at_most_an_eighth(typical: float, share: float) -> None:
    random.seed(7)
    values = sorted(random.lognormvariate(0, 1) * typical for _ in range(5000))
    exact = values[int(share * len(values)) - 1]
    assert percentile(histogram_of(values), share) == pytest.approx(exact, rel=1 / 8)


def test_there_is_no_percentile_of_nothing() -> None:
    assert percentile([], 0.5) is None
    assert percentile([0] * BUCKETS, 0.99) is None


def test_histograms_cut_short_add_up() -> None:
    first, second = histogram_of([0.01, 5.0]), histogram_of([0.01, 900.0])
    assert summed((trimmed(first), trimmed(second))) == [a + b for a, b in zip(first, second, strict=True)]
    assert trimmed([0, 0]) == []
    assert summed(()) == [0] * BUCKETS
