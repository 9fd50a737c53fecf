"""Rates in figures, and what a task may take."""

import pytest

from app.domain.limits import LimitRule, LimitUse, QueueRules, Rate, task_errors, uses_of

KNOWN = {"plain": LimitRule(False, None), "keyed": LimitRule(True, None), "paced": LimitRule(False, 10.0)}


@pytest.mark.parametrize(
    ("rate", "capacity"),
    [
        (Rate(500, 60), 1.0),
        (Rate(100), 10.0),
        (Rate(15), 1.5),
        (Rate(1, 3600), 1.0),
        (Rate(100, burst=1), 1.0),
        (Rate(1, burst=50), 50.0),
    ],
)
def test_without_a_burst_a_rate_admits_at_once_what_a_tenth_of_a_second_brings(rate: Rate, capacity: float) -> None:
    assert rate.capacity == capacity


def test_the_forms_of_a_use_are_one() -> None:
    assert uses_of(["a", LimitUse("b", "task", 2), LimitUse("c", "k")]) == (
        LimitUse("a"),
        LimitUse("b", None, 2),
        LimitUse("c", "k"),
    )


def pointers(key: str | None, *own: LimitUse, rules: QueueRules = QueueRules()) -> list[str]:  # noqa: B008  # frozen
    return [error.pointer for error in task_errors(key, own, rules, KNOWN, "/t")]


def test_a_task_s_own_entry_replaces_that_of_its_queue() -> None:
    rules = QueueRules(uses=(LimitUse("keyed"),))
    assert pointers(None, rules=rules) == ["/t/key"]
    assert pointers("k", rules=rules) == []
    assert pointers(None, LimitUse("keyed", "one"), rules=rules) == []


def test_each_conflict_has_a_pointer() -> None:
    assert pointers(None, rules=QueueRules(key_required=True)) == ["/t/key"]
    assert pointers(None, LimitUse("keyed")) == ["/t/limits/0/key"]
    assert pointers("k", LimitUse("plain", "one")) == ["/t/limits/0/key"]
    assert pointers("k", LimitUse("plain"), LimitUse("paced", None, 11)) == ["/t/limits/1/cost"]
    assert pointers("k", LimitUse("none")) == ["/t/limits/0/name"]


def test_limits_of_queue_handler_and_key_count_with_the_task_s_own() -> None:
    rules = QueueRules(False, True, (LimitUse("plain"), LimitUse("paced")), (LimitUse("paced"),))
    assert rules.count() == 3
    assert pointers("k", LimitUse("keyed"), rules=rules) == []
    rules = QueueRules(False, True, (LimitUse("plain"), LimitUse("paced")), (LimitUse("x"),))
    assert pointers("k", LimitUse("keyed"), rules=rules) == ["/t/limits"]
    assert pointers(None, LimitUse("keyed", "one"), rules=rules) == [], "without a key, its limit is not taken"
