"""Which keys a caller may issue: narrower than its own in every dimension."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.domain.callers import Caller
from app.domain.errors import Refusal
from app.domain.keys import Grant, check_issue, check_reach

END = datetime(2027, 1, 1, tzinfo=UTC)
MANAGER = Caller(1, "acme", "manage")
CONFINED = replace(MANAGER, queues=("mail", "billing-*"))
BLIND = replace(MANAGER, payloads=False)
SHORT = replace(MANAGER, expires_at=END)


@pytest.mark.parametrize(
    ("caller", "grant", "allowed"),
    [
        (MANAGER, Grant("manage"), True),
        (MANAGER, Grant("read"), True),
        (MANAGER, Grant("operate"), False),
        (replace(MANAGER, scope="operate"), Grant("operate"), True),
        (CONFINED, Grant("use"), False),
        (CONFINED, Grant("use", queues=("mail",)), True),
        (CONFINED, Grant("use", queues=("billing-eu-*", "mail")), True),
        (CONFINED, Grant("use", queues=("mail", "other")), False),
        (CONFINED, Grant("use", queues=("*",)), False),
        (BLIND, Grant("use"), False),
        (BLIND, Grant("use", payloads=False), True),
        (SHORT, Grant("use"), False),
        (SHORT, Grant("use", expires_at=END), True),
        (SHORT, Grant("use", expires_at=END + timedelta(seconds=1)), False),
    ],
)
def test_a_key_reaches_no_further_than_the_one_that_makes_it(caller: Caller, grant: Grant, allowed: bool) -> None:
    if allowed:
        check_issue(caller, grant)
        return
    with pytest.raises(Refusal, match="forbidden"):
        check_issue(caller, grant)


def test_a_key_that_ends_soon_may_revoke_one_that_lasts() -> None:
    check_reach(SHORT, Grant("manage"))


def test_only_an_operator_who_is_not_confined_sees_every_tenant() -> None:
    operator = replace(MANAGER, scope="operate")
    assert operator.may("operate")
    for caller in (MANAGER, replace(operator, queues=("mail",))):
        assert not caller.may("operate")
        with pytest.raises(Refusal, match="forbidden"):
            caller.require("operate")
