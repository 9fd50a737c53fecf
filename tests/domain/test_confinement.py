"""Which queues a key is confined to, as a table."""

import re

import pytest

from app.domain.confinement import PATTERN, like_patterns, matches, within


@pytest.mark.parametrize(
    ("patterns", "name", "expected"),
    [
        (("mail",), "mail", True),
        (("mail",), "mail2", False),
        (("mail",), "Mail", False),
        (("mail",), "a-mail", False),
        (("billing-*",), "billing-", True),
        (("billing-*",), "billing-eu", True),
        (("billing-*",), "billing", False),
        (("*-eu",), "billing-eu", True),
        (("a*b*c",), "abc", True),
        (("a*b*c",), "axxbyyc", True),
        (("a*b*c",), "acb", False),
        (("*",), "anything", True),
        (("a.b",), "axb", False),
        (("a_b",), "axb", False),
        (("mail", "billing-*"), "billing-eu", True),
        (("mail", "billing-*"), "mailing", False),
        (("mail",), "mail\n", False),
    ],
)
def test_a_pattern_stands_for_these_queues(patterns: tuple[str, ...], name: str, expected: bool) -> None:
    assert matches(patterns, name) is expected


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        (("mail",), ("mail", "billing-*"), True),
        (("billing-eu", "billing-us"), ("billing-*",), True),
        (("billing-eu-*",), ("billing-*",), True),
        (("billing-*",), ("billing-*",), True),
        (("billing-*",), ("billing-eu-*",), False),
        (("b*",), ("billing-*",), False),
        (("*",), ("mail", "billing-*"), False),
        (("*",), ("*",), True),
        (("mail", "other"), ("mail",), False),
        (("m*l",), ("mail",), False),
        (("a*c",), ("a*b*c",), False),
        (("a*b*c",), ("a*c",), True),
    ],
)
def test_patterns_lie_within_others(inner: tuple[str, ...], outer: tuple[str, ...], expected: bool) -> None:
    assert within(inner, outer) is expected


def test_many_stars_cost_no_time() -> None:
    assert not matches(("a*" * 40 + "b",), "a" * 100)


def test_sql_is_given_the_same_patterns() -> None:
    assert like_patterns(["mail", "a_b", "billing-*"]) == ["mail", r"a\_b", "billing-%"]


@pytest.mark.parametrize("text", ["", "a b", "a?", "[a]", "-a", "ä", "_a", "a" * 101, "a\n", "a%"])
def test_other_signs_are_no_pattern(text: str) -> None:
    assert re.match(PATTERN, text) is None
