"""Allowances: a burst, a rate, and a debt that is paid by waiting."""

import pytest

from app.domain import allowances
from app.domain.allowances import Allowance


def test_a_burst_may_be_used_at_once_and_comes_back_at_the_rate() -> None:
    allowance = Allowance(rate=0.5, burst=10)
    assert allowance.wait_seconds("A", 0) == 0
    allowance.take("A", 10, 0)
    assert allowance.left("A", 0) == 0 and allowance.wait_seconds("A", 0) == 0
    assert allowance.left("A", 4) == 2
    assert allowance.left("A", 1_000) == 10


def test_what_was_taken_beyond_it_is_waited_for() -> None:
    allowance = Allowance(rate=0.5, burst=10)
    allowance.take("A", 13, 0)
    assert allowance.wait_seconds("A", 0) == 6
    assert allowance.wait_seconds("A", 4) == pytest.approx(2)
    assert allowance.wait_seconds("A", 6) == 0


def test_each_tenant_has_its_own() -> None:
    allowance = Allowance(rate=0.5, burst=10)
    allowance.take("A", 100, 0)
    assert allowance.wait_seconds("B", 0) == 0 and allowance.left("B", 0) == 10


def test_tenants_that_are_whole_again_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowances, "MAX_KNOWN", 3)
    allowance = Allowance(rate=1, burst=10)
    for n in range(3):
        allowance.take(n, 1, 0)
    allowance.take("A", 20, 5)
    assert list(allowance._left) == ["A"] and allowance.wait_seconds("A", 5) == 10
