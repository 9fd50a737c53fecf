"""Instants on the wire."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.instants import format_instant, parse_instant


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-21T22:44:00Z", datetime(2026, 11, 21, 22, 44, tzinfo=UTC)),
        ("2026-11-21t22:44:00z", datetime(2026, 11, 21, 22, 44, tzinfo=UTC)),
        ("2026-11-21T22:44:00.5+02:00", datetime(2026, 11, 21, 20, 44, 0, 500000, tzinfo=UTC)),
        ("2026-11-21T22:44:00.123456789-00:00", datetime(2026, 11, 21, 22, 44, 0, 123456, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999Z", datetime(9999, 12, 31, 23, 59, 59, 999998, tzinfo=UTC)),
        ("0001-01-01T00:00:00+01:00", None),
        ("9999-12-31T23:59:59-01:00", None),
        ("2026-11-21T22:44:00", None),
        ("2026-11-21", None),
        ("2026-11-21 22:44:00Z", None),
        ("2026-11-21T22:44Z", None),
        ("20261121T224400Z", None),
        ("2026-02-30T00:00:00Z", None),
        ("2026-11-21T24:00:00Z", None),
        ("2026-11-21T23:59:60Z", None),
        ("2026-11-21T22:44:00+2:00", None),
        ("2026-11-21T22:44:00+24:00", None),
        ("2026-11-21T22:44:00.Z", None),
        ("2026-11-21T22:44:00Z\n", None),
        ("٢٠٢٦-11-21T22:44:00Z", None),
        ("1763764800", None),
        ("", None),
    ],
)
def test_rfc_3339_with_an_offset_and_nothing_else(text: str, expected: datetime | None) -> None:
    assert parse_instant(text) == expected


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)), st.integers(-1439, 1439))
def test_instants_survive_the_wire(naive: datetime, minutes: int) -> None:
    instant = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert parse_instant(format_instant(instant)) == instant


def test_one_form_is_written() -> None:
    assert format_instant(datetime(2026, 11, 21, 22, 44, tzinfo=UTC)) == "2026-11-21T22:44:00.000000Z"
    assert format_instant(datetime(2026, 7, 1, 2, 0, tzinfo=ZoneInfo("Europe/Berlin"))) == "2026-07-01T00:00:00.000000Z"
    with pytest.raises(ValueError, match="zone"):
        format_instant(datetime(2026, 11, 21))
