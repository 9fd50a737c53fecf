"""How far a batch is, by its counts and by what ended lately; and what a request for one may look like."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.batches import MAX_ETA_SECONDS, RECENT_SECONDS, Pace, progress, split_batch, split_tasks
from app.domain.errors import Refusal
from app.domain.instants import parse_instant

NOW = datetime(2026, 11, 22, tzinfo=UTC)
NONE = {"scheduled": 0, "ready": 0, "running": 0, "succeeded": 0, "dead": 0, "cancelled": 0}


def pace(recent: float, *, age: float = 3600.0, quiet: float = 0.0) -> Pace:
    return Pace(NOW, NOW - timedelta(seconds=age), recent, NOW - timedelta(seconds=quiet))


@given(st.floats(1, 5000), st.floats(1, 600), st.sampled_from([0.05, 0.5, 1.0]))
def test_a_steady_flow_is_told_as_it_is_from_the_start(per_second: float, age: float, fold_seconds: float) -> None:
    """The folder adds what ended since its last look to what is left of the count before."""
    recent, folds = 0.0, max(1, round(age / fold_seconds))
    for _ in range(min(folds, 2000)):
        recent = per_second * fold_seconds + recent * math.exp(-fold_seconds / RECENT_SECONDS)
    told = pace(recent, age=min(folds, 2000) * fold_seconds).rate(1)
    assert told == pytest.approx(per_second, rel=0.02)


def test_the_rate_fades_while_nothing_ends_and_is_the_mean_after_a_while() -> None:
    flowing = pace(300.0).rate(1000)
    assert pace(300.0, quiet=RECENT_SECONDS).rate(1000) == pytest.approx(flowing / math.e)
    assert pace(300.0, quiet=200.0, age=1000.0).rate(500) == pytest.approx(0.5)


@pytest.mark.parametrize(("succeeded", "total", "percent"), [(1, 3, 33.33), (99_999, 100_000, 99.99), (7, 7, 100.0)])
def test_percent_is_100_only_when_nothing_is_left(succeeded: int, total: int, percent: float) -> None:
    assert progress({**NONE, "succeeded": succeeded}, total, sealed=True, pace=pace(1.0))[0] == percent


def test_an_eta_is_told_only_for_a_sealed_batch_that_moves() -> None:
    counts = {**NONE, "succeeded": 10, "dead": 5, "cancelled": 5, "ready": 100}
    percent, rate, eta = progress(counts, 120, sealed=True, pace=pace(2.0 * RECENT_SECONDS))
    assert (percent, rate) == (16.66, 2.0) and eta is not None
    assert parse_instant(eta) == NOW + timedelta(seconds=50)
    assert progress(counts, 120, sealed=False, pace=pace(60.0))[2] is None
    assert progress(counts, 20, sealed=True, pace=pace(60.0))[2] is None
    assert progress(counts, 120, sealed=True, pace=pace(0.0))[2] is None
    crawling = {**NONE, "succeeded": 1}
    assert progress(crawling, int(MAX_ETA_SECONDS), sealed=True, pace=pace(0.001 * RECENT_SECONDS))[2] is None


def test_an_empty_batch_is_whole_once_it_is_sealed() -> None:
    assert [progress(NONE, 0, sealed=sealed, pace=pace(0.0))[0] for sealed in (True, False)] == [100.0, 0.0]


def test_the_payload_of_on_complete_stays_its_bytes_also_where_the_tasks_say_the_same() -> None:
    asked = split_batch(b'{"on_complete": {"queue": "q", "payload": [ ]}, "tasks": [ ], "queue": "q"}', 100)
    assert asked.on_complete is not None and asked.on_complete.payload == b"[ ]"
    assert (asked.spans, asked.sealed) == ([], True)


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        (
            b'{"queue": "q", "on_complete": {"queue": "q", "payload": "' + b"x" * 100 + b'"}}',
            "invalid",
            "/on_complete/payload",
        ),
        (b'{"queue": "q", "tasks": [{"payload": 1}], "sealed": null}', "invalid", "/sealed"),
        (b'{"queue": "q", "tasks": null}', "invalid", "/tasks"),
        (b'{"queue": "q", "tasks": [], "tasks": []}', "malformed", None),
    ],
)
def test_a_batch_that_is_none_is_refused_with_its_pointer(body: bytes, code: str, pointer: str | None) -> None:
    with pytest.raises(Refusal) as refused:
        split_batch(body, 100)
    assert refused.value.code == code
    assert [error.pointer for error in refused.value.errors] == ([] if pointer is None else [pointer])


def test_tasks_to_be_added_are_at_least_one() -> None:
    assert [bytes(span) for span in split_tasks(b'{"tasks": [{"payload": 1}, 2]}')] == [b'{"payload": 1}', b"2"]
    with pytest.raises(Refusal):
        split_tasks(b'{"tasks": []}')
