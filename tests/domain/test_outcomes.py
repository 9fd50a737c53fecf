"""decide() as the table it is."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.answers import FOLLOWUPS_TYPE, MAX_FOLLOWUP_BYTES, Answer, NoAnswer
from app.domain.backoff import Backoff, RetryPolicy
from app.domain.options import PushedBack
from app.domain.outcomes import (
    MAX_LEASE_SECONDS,
    FollowupsFault,
    Settlement,
    Standing,
    Terms,
    decide,
    decide_refused_followups,
    excerpt,
    retry_after_seconds,
)

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
POLICY = RetryPolicy(max_attempts=3, retry_after_max_seconds=100, backoff=Backoff("fixed", seconds=7.0))


def decided(
    answer: Answer | NoAnswer,
    *,
    attempt: int = 1,
    fatal: frozenset[int] = frozenset(),
    max_attempts: int = 3,
    **guard: Any,
) -> Settlement:
    policy = replace(POLICY, max_attempts=max_attempts)
    return decide(answer, Terms(attempt, policy, NOW, 0.5, fatal, Standing(**guard)))


def answer(status: int, body: bytes = b"", truncated: bool = False, **headers: Any) -> Answer:
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body, truncated)


@pytest.mark.parametrize(
    ("status", "headers", "fatal", "kind", "reason"),
    [
        (200, {}, (), "succeeded", None),
        (299, {}, (), "succeeded", None),
        # A row above another wins: success over `sluice-retry: no` and over a fatal status that names it.
        (202, {"sluice_retry": "no"}, (202,), "succeeded", None),
        (410, {}, (), "refund", None),
        (410, {"sluice_retry": "no"}, (410,), "refund", None),
        (500, {"sluice_retry": "no"}, (500,), "dead", "stopped_by_handler"),
        (302, {"sluice_retry": " NO "}, (), "dead", "stopped_by_handler"),
        (500, {"sluice_retry": "yes"}, (), "retry", None),
        (400, {}, (400, 422), "dead", "fatal_status"),
        (404, {}, (400, 422), "retry", None),
        (301, {}, (), "retry", None),
        (500, {}, (), "retry", None),
        (103, {}, (), "retry", None),
        (999, {}, (), "retry", None),
    ],
)
def test_each_answer_has_one_meaning(
    status: int, headers: dict[str, Any], fatal: tuple[int, ...], kind: str, reason: str | None
) -> None:
    settled = decided(answer(status, **headers), fatal=frozenset(fatal))
    assert (settled.kind, settled.reason) == (kind, reason)
    assert settled.status == status
    assert settled.disable_handler == (status == 410)
    assert settled.outcome == ("succeeded" if kind == "succeeded" else "failed")


@pytest.mark.parametrize("outcome", ["timeout", "unreachable", "too_large", "egress_denied"])
def test_no_full_answer_is_retried_and_then_dead(outcome: str) -> None:
    silence = NoAnswer(outcome, "no full answer within 30 s")  # type: ignore[arg-type]
    assert decided(silence, attempt=2) == Settlement(
        "retry", outcome, delay_seconds=7.0, error="no full answer within 30 s"
    )
    dead = decided(silence, attempt=3)
    assert (dead.kind, dead.outcome, dead.reason) == ("dead", outcome, "attempts_exhausted")


def test_the_last_attempt_is_dead_and_a_refund_is_not_an_attempt() -> None:
    assert decided(answer(503), attempt=2).kind == "retry"
    dead = decided(answer(503), attempt=3)
    assert (dead.kind, dead.reason, dead.error) == ("dead", "attempts_exhausted", "the handler answered 503")
    assert decided(answer(410), attempt=3).kind == "refund"
    assert decided(answer(200), attempt=9).kind == "succeeded"
    assert decided(answer(503), attempt=4).reason == "attempts_exhausted"


def test_the_body_of_a_success_is_the_result_whatever_it_is() -> None:
    settled = decided(answer(200, b"\xff\x00" * 2000, truncated=True))
    assert settled.result == b"\xff\x00" * 2000
    assert settled.result_truncated
    assert settled.excerpt is not None
    assert "\x00" not in settled.excerpt
    assert decided(answer(204)).result == b""
    assert decided(answer(500, b"why")).result is None


def test_an_excerpt_is_a_kibibyte_that_postgres_can_store() -> None:
    assert excerpt(b"") is None
    assert excerpt(b"a\x00b") == "ab"
    assert excerpt(b"x" * 5000) == "x" * 1024
    assert excerpt("é".encode() * 600)[-1] in "é\ufffd"  # type: ignore[index]
    assert decided(NoAnswer("unreachable", "a\x00b")).error == "ab"


@pytest.mark.parametrize("status", [429, 503])
def test_a_guarded_handler_that_pushes_back_spends_no_attempt(status: int) -> None:
    pushed = decided(answer(status, retry_after="30"), attempt=3, guarded=True)
    assert (pushed.kind, pushed.outcome, pushed.delay_seconds) == ("refund", "pushed_back", 30)
    assert decided(answer(status), guarded=True).delay_seconds == 7, "the backoff is the least it waits"
    assert decided(answer(status, retry_after="999"), guarded=True).delay_seconds == 100
    assert decided(answer(status), attempt=3).reason == "attempts_exhausted"
    for other in (answer(500), answer(status, sluice_retry="no")):
        assert decided(other, guarded=True).outcome == "failed"
    assert decided(answer(status), fatal=frozenset({status}), guarded=True).reason == "fatal_status"


def test_push_backs_in_a_row_lengthen_the_backoff_and_end_the_task_after_a_day() -> None:
    policy = RetryPolicy(max_attempts=3, backoff=Backoff("list", seconds=(1.0, 2.0, 3.0)))

    def pushed(times: int, ago: timedelta, attempt: int = 2) -> Settlement:
        standing = Standing(guarded=True, pushed_back=PushedBack(NOW - ago, times, attempt))
        return decide(answer(429), Terms(2, policy, NOW, 0.5, standing=standing))

    hour, day = timedelta(hours=1), timedelta(hours=24)
    assert [pushed(times, hour).delay_seconds for times in (1, 2, 9)] == [2, 3, 3]
    assert pushed(9, day - timedelta(seconds=1)).kind == "refund"
    dead = pushed(9, day)
    assert (dead.kind, dead.outcome, dead.reason) == ("dead", "pushed_back", "pushed_back_too_long")
    assert pushed(9, day, attempt=1).delay_seconds == 1, "another attempt was spent in between: they begin again"


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        (answer(500), "failed"),
        (answer(429), "failed"),
        (NoAnswer("timeout", "why"), "timeout"),
        (NoAnswer("unreachable", "why"), "unreachable"),
    ],
)
def test_what_a_breaker_takes_for_the_services_failure_is_free_in_a_probe(given: Any, outcome: str) -> None:
    probe = decided(given, attempt=3, probe=True)
    assert (probe.kind, probe.outcome, probe.delay_seconds) == ("refund", outcome, 7)
    assert decided(given, attempt=3).kind == "dead"


@pytest.mark.parametrize("given", [answer(404), NoAnswer("egress_denied", "why"), NoAnswer("too_large", "why")])
def test_what_says_nothing_of_the_service_counts_in_a_probe_too(given: Any) -> None:
    assert decided(given, attempt=3, probe=True).reason == "attempts_exhausted"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0),
        ("12", 12),
        (" 12 ", 12),
        ("0", 0),
        ("-5", 0),
        ("1.5", 0),
        ("1e3", 0),
        ("٣", 0),
        ("", 0),
        ("soon", 0),
        ("9" * 5000, 1e18),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0),
        ("Sat, 21 Nov 2026 12:00:10 -0000", 10),
        ("Saturday, 21-Nov-26 12:00:30 GMT", 30),
        ("Sat Nov 21 12:00:40 2026", 40),
        ("Sat, 99 Nov 2026 12:00:10 GMT", 0),
        ("\ufffd" * 300, 0),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_garbage_is_nothing(value: str | None, seconds: float) -> None:
    assert retry_after_seconds(value, NOW) == seconds


def test_retry_after_lengthens_the_backoff_up_to_its_cap_and_never_shortens_it() -> None:
    assert decided(answer(503, retry_after="3")).delay_seconds == 7
    assert decided(answer(503, retry_after="30")).delay_seconds == 30
    assert decided(answer(503, retry_after="3000")).delay_seconds == 100
    assert decided(answer(429, retry_after="9" * 400)).delay_seconds == 100


def followups(body: bytes = b"{}", *, status: int = 200, truncated: bool = False, **headers: Any) -> Answer:
    return answer(status, body, truncated, content_type=f"{FOLLOWUPS_TYPE}; charset=utf-8", **headers)


def refused_followups(
    code: FollowupsFault, given: Answer, *, error: str = "/tasks/0: no", attempt: int = 1
) -> Settlement:
    return decide_refused_followups(given, Terms(attempt, POLICY, NOW, 0.5), error, code)


def test_follow_up_work_is_no_plain_success() -> None:
    settled = decided(followups(b'{"tasks": []}', status=201), attempt=9)
    assert settled == Settlement("succeeded", "succeeded", status=201, excerpt='{"tasks": []}', followups=True)
    assert settled.result is None
    assert not decided(answer(200, b"{}", content_type="application/json")).followups


@pytest.mark.parametrize("status", [302, 410, 422, 500])
def test_follow_up_work_under_any_status_but_2xx_is_not_read(status: int) -> None:
    settled = decided(followups(status=status))
    assert not settled.followups
    assert settled.kind != "succeeded"


def test_a_hold_stands_above_follow_up_work() -> None:
    assert decided(followups(sluice_hold="60")).kind == "hold"
    assert decided(followups(sluice_hold="0")).kind == "retry"


@pytest.mark.parametrize(
    ("body", "truncated"), [(b"x" * 10, True), (b"x" * (MAX_FOLLOWUP_BYTES + 1), False)], ids=["cut", "one byte more"]
)
def test_a_document_larger_than_is_allowed_is_dead_at_once(body: bytes, truncated: bool) -> None:
    settled = decided(followups(body, truncated=truncated))
    assert (settled.kind, settled.outcome, settled.reason) == ("dead", "failed", "followup_too_large")
    assert settled.error == "the follow-up work has more than 4194304 bytes"
    assert settled.excerpt is not None
    assert len(settled.excerpt) <= 1024
    assert decided(followups(b"x" * MAX_FOLLOWUP_BYTES)).followups


def test_invalid_follow_up_work_is_retried_as_any_failure() -> None:
    settled = refused_followups("invalid", followups(retry_after="30"), attempt=2)
    assert settled == Settlement(
        "retry", "failed", delay_seconds=30, status=200, error="/tasks/0: no", excerpt="{}", retry_after_seconds=30
    )
    assert refused_followups("invalid", followups()).delay_seconds == 7
    assert refused_followups("invalid", followups(retry_after="9999")).delay_seconds == 100
    dead = refused_followups("invalid", followups(), attempt=3)
    assert (dead.kind, dead.outcome, dead.reason, dead.error) == (
        "dead",
        "failed",
        "attempts_exhausted",
        "/tasks/0: no",
    )


def test_a_page_that_could_never_fit_is_dead_and_one_that_does_not_fit_now_is_not_counted() -> None:
    dead = refused_followups("too_large", followups())
    assert (dead.kind, dead.outcome, dead.reason) == ("dead", "failed", "followup_too_large")
    listed = RetryPolicy(max_attempts=3, retry_after_max_seconds=100, backoff=Backoff("list", seconds=(5.0, 60.0)))
    terms = Terms(3, listed, NOW, 0.5)
    full = decide_refused_followups(followups(retry_after="90"), terms, "queue work is full", "queue_full")
    assert full == Settlement("refund", "failed", delay_seconds=5, status=200, error="queue work is full", excerpt="{}")


def test_the_error_of_follow_up_work_is_bounded_and_one_that_postgres_can_store() -> None:
    settled = refused_followups("invalid", followups(), error="a\x00" + "b" * 5000)
    assert settled.error == "a" + "b" * 1999


@given(
    st.integers(100, 999),
    st.dictionaries(
        st.sampled_from(["sluice-retry", "retry-after", "sluice-hold", "content-type"]), st.text(max_size=40)
    ),
    st.binary(max_size=2000),
    st.integers(1, 30),
    st.floats(0, 1, exclude_max=True),
)
def test_any_answer_is_decided(status: int, headers: dict[str, str], body: bytes, attempt: int, jitter: float) -> None:
    terms = Terms(attempt, RetryPolicy(max_attempts=25), NOW, jitter, frozenset({400}))
    settled = decide(Answer(status, headers, body), terms)
    assert 0 <= settled.delay_seconds <= (MAX_LEASE_SECONDS if settled.kind == "hold" else 3600)
    assert (settled.kind == "dead") == (settled.reason is not None)
    assert settled.excerpt is None or len(settled.excerpt) <= 1024
