"""The signature of an error, as a table; and errors grouped by it."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.domain.signatures import LONGEST, Failure, grouped, signature

NOW = datetime(2026, 11, 26, tzinfo=UTC)


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        ("", ""),
        ("connection refused", "connection refused"),
        ("the handler answered 503", "the handler answered #"),
        ("timeout after 30.5 s, attempt 3 of 25", "timeout after # s, attempt # of #"),
        ("order 8f14e45f-ceea-467f-a9e2-1b2f3c4d5e6f is gone", "order <id> is gone"),
        ("customer cus_9s6XKzkNRiz8i3 has no card", "customer <id> has no card"),
        ("commit 9fceb02d0ae598e95dc970b74767f19372d61af8", "commit <id>"),
        ("no column \"total\" in 'orders'", "no column <text> in <text>"),
        ("can't open `a b`; don't retry", "can't open <text>; don't retry"),
        ("KeyError: 'user-17'", "KeyError: <text>"),
        ("10.0.0.7:5432 refused", "# refused"),
        ("at 2026-11-26T10:00:00Z\n  in line 12", "at # in line #"),
        ("utf8 and v2 stay words", "utf# and v# stay words"),
        ("step 1'2' failed", "step #<text> failed"),
        ("x" * 300, "x" * LONGEST),
    ],
)
def test_what_differs_from_task_to_task_is_replaced(error: str, wanted: str) -> None:
    assert signature(error) == wanted


@given(st.text(alphabet="ab1 '\"`<>#-_.é\n", max_size=60))
@example("x" * (LONGEST - 4) + " 'a'b")
def test_the_signature_of_a_signature_is_itself(error: str) -> None:
    assert signature(signature(error)) == signature(error)


@pytest.mark.parametrize("part", ["“", "“a'", '"', "`'", "a'1 ", "-1", "_"])
def test_a_long_error_full_of_marks_takes_no_long_time(part: str) -> None:
    began = time.monotonic()
    signature(part * (60_000 // len(part)))
    assert time.monotonic() - began < 2


def test_errors_are_grouped_by_signature_with_the_most_frequent_first() -> None:
    def failure(error: str, minutes: int, count: int = 1, *, dead: bool = True) -> Failure:
        at = NOW + timedelta(minutes=minutes)
        return Failure(error, count, at, at, f"task of {error}", dead)

    groups = grouped([failure("once", 0), failure("no 1", 1, 2), failure("no 7", 3, dead=False), failure("no 2", 2)])
    assert [(group.signature, group.count, group.dead) for group in groups] == [("no #", 4, 3), ("once", 1, 1)]
    first = groups[0]
    assert (first.first_seen, first.last_seen) == ("2026-11-26T00:01:00.000000Z", "2026-11-26T00:03:00.000000Z")
    assert (first.example.task, first.example.error) == ("task of no 7", "no 7")
