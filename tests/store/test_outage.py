"""An outage is one outage: it begins with the first failure, and ends when statements are answered and none fails any more."""

from typing import Any

import pytest

from app.store import outage
from app.store.outage import CALM_SECONDS, Outage
from app.telemetry import events


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(outage, "time", clock)
    return clock


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    lines: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(events, "emit", lambda log, event, **fields: lines.append((event.name, fields)))
    return lines


def test_statements_that_succeed_amid_failures_do_not_end_it(
    clock: Clock, said: list[tuple[str, dict[str, Any]]]
) -> None:
    away = Outage()
    for _ in range(20):
        away.met("claim_v1", "gone")
        clock.now += CALM_SECONDS * 0.9
        away.answered(away.failures)
    assert said == [("database_unavailable", {"statement": "claim_v1", "error": "gone"})]
    clock.now += CALM_SECONDS
    away.answered(away.failures)
    assert said[1:] == [("database_back", {"outage_seconds": round(20 * CALM_SECONDS * 0.9, 3)})]
    assert not away.on


def test_an_answer_to_a_statement_that_was_sent_before_the_last_failure_proves_nothing(
    clock: Clock, said: list[tuple[str, dict[str, Any]]]
) -> None:
    away = Outage()
    away.met("claim_v1", "gone")
    sent = away.failures
    away.met("reap_v1", "gone")
    for _ in range(3):
        clock.now += CALM_SECONDS
        away.answered(sent)
    assert away.on
    assert [name for name, _ in said] == ["database_unavailable"]


def test_where_there_was_none_nothing_is_over(said: list[tuple[str, dict[str, Any]]]) -> None:
    away = Outage()
    away.answered(0)
    away.over()
    assert said == []
