"""When a request is repeated, and after how long: tables of pure functions."""

from datetime import UTC, datetime

import pytest

from sluice_client.errors import ApiError, ConnectionFailed, NotSluice, SluiceError, Unavailable
from sluice_client.retrying import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    is_keyed,
    pause_before,
    repeats_after,
    retry_after_seconds,
)

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("Thu, 26 Nov 2026 12:00:30 GMT", 30.0),
        ("Thu, 26 Nov 2026 13:00:30 +0100", 30.0),
        ("Thu, 26 Nov 2026 12:00:30 -0000", 30.0),
        ("Thursday, 26-Nov-26 12:00:30 GMT", 30.0),
        ("Thu, 26 Nov 2026 11:00:00 GMT", 0.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("²", None),
        ("Thu, 99 Nov 2026 99:00:30 GMT", None),
    ],
)
def test_retry_after_is_read_as_seconds_and_as_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(value, NOW) == seconds


def test_pauses_double_up_to_a_bound_and_half_of_each_is_chance() -> None:
    shortest = [pause_before(repeat, 0.0, 1000.0, 0.0) for repeat in range(1, 40)]
    longest = [pause_before(repeat, 0.0, 1000.0, 1.0) for repeat in range(1, 40)]
    assert shortest[:4] == [FIRST_PAUSE_SECONDS * factor for factor in (0.5, 1, 2, 4)]
    assert longest[:4] == [FIRST_PAUSE_SECONDS * factor for factor in (1, 2, 4, 8)]
    assert shortest[-1] == LONGEST_PAUSE_SECONDS / 2 and longest[-1] == LONGEST_PAUSE_SECONDS


def test_a_pause_is_as_long_as_asked_and_never_longer_than_what_remains() -> None:
    assert pause_before(1, 7.0, 10.0, 0.5) == 7.0
    assert pause_before(1, 7.0, 7.0, 0.5) is None
    assert pause_before(1, 0.0, 0.01, 0.5) is None
    assert pause_before(1, 0.0, -1.0, 0.5) is None


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (ConnectionFailed("no response"), 0.0),
        (NotSluice("a proxy", 502), 0.0),
        (NotSluice("a proxy", 504, 3.0), 3.0),
        (NotSluice("another program", 404), None),
        (Unavailable(503, "unavailable", "", retry_after=2.0), 2.0),
        (ApiError(429, "rate_limited", ""), 0.0),
        (ApiError(500, "internal", ""), None),
        (ApiError(409, "task_ended", "", retry_after=2.0), None),
        (SluiceError("any other"), None),
    ],
)
def test_only_what_may_pass_is_repeated(error: SluiceError, seconds: float | None) -> None:
    assert repeats_after(error) == seconds


def test_an_enqueue_is_keyed_if_each_of_its_tasks_is() -> None:
    keyed, bare = {"payload": 1, "idempotency_key": "a"}, {"payload": 1, "unique_key": "a"}
    assert is_keyed(keyed) and is_keyed({"tasks": [keyed, keyed]})
    assert (
        not is_keyed(bare)
        and not is_keyed({"tasks": [keyed, bare]})
        and not is_keyed({"payload": 1, "idempotency_key": None})
    )
