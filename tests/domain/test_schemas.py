"""Schemas of payloads: what is said of them before they run."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.schemas.bounds import SATURATED, find_bounds, pattern_states
from app.domain.schemas.rules import (
    MAX_ERRORS,
    check_size,
    compile_schema,
    examine,
    schema_text,
    schema_value,
    violations,
)

REF = "#/$defs/item"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)
KEYWORDS = st.sampled_from(
    ["$ref", "$dynamicRef", "$anchor", "$id", "$schema", "$defs", "allOf", "not", "items", "properties", "pattern",
     "patternProperties", "enum", "required", "unevaluatedProperties", "x"]
)  # fmt: skip
VALUES = st.recursive(
    st.sampled_from(["#", "#/", "#/$defs/a", "#/%zz", "#a", "a", "http://x/", "(", "a{9}{9}", 5, True, None, -1]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KEYWORDS, inner, max_size=4)
        | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    ),
    max_leaves=12,
)


@given(JSON.filter(lambda value: value is not None))
def test_a_schema_keeps_what_it_says(value: Any) -> None:
    text = schema_text(value)
    assert text is not None and schema_text(schema_value(text)) == text


def test_equal_values_that_mean_different_things_are_different_schemas() -> None:
    assert len({schema_text({"const": value}) for value in (1, 1.0, True)}) == 3
    assert schema_text(None) is None and schema_value(None) is None


@given(VALUES)
def test_nothing_breaks_the_reading_of_a_schema(value: Any) -> None:
    text = schema_text(value) or "null"
    errors = check_size(text) or examine(text)[0]
    for error in errors:
        assert error.pointer.startswith("/payload_schema") and error.detail
    if not errors:
        try:
            validator = compile_schema(value)
        except ValueError:
            return
        assert len(violations(validator, find_bounds(value), b'{"a": [1, "a"]}')) <= MAX_ERRORS


@pytest.mark.parametrize(
    ("schema", "cheap"),
    [
        (True, True),
        ({"properties": {"a": {"items": {"type": "string", "pattern": "^[a-z]{1,63}$"}}}}, True),
        ({"items": {"$ref": REF}, "$defs": {"item": {"type": "integer"}}}, True),
        ({"properties": {"next": {"$ref": "#"}}}, False),
        ({"items": {"$dynamicRef": "#node"}, "$dynamicAnchor": "node"}, False),
        ({"$defs": {"item": {"$id": "item"}}, "items": {"$ref": "item"}}, False),
        ({"unevaluatedProperties": False}, False),
        ({"pattern": "(a{100}){1000}"}, False),
        ({"enum": list(range(6_000))}, False),
    ],
)
def test_what_is_cheap_can_be_told_before_it_runs(schema: Any, cheap: bool) -> None:
    bounds = find_bounds(schema)
    assert (bounds.cheap, bounds.problems) == (cheap, [])
    assert (bounds.applications < SATURATED) or not cheap


def test_work_is_bounded_by_the_size_of_schema_and_payload() -> None:
    small = find_bounds({"items": {"type": "integer"}})
    large = find_bounds({"items": {"allOf": [{"type": "integer"}] * 50}})
    assert small.units(b"[1,2]") < small.units(b"[1,2,3,4]") < large.units(b"[1,2,3,4]")
    text = find_bounds({"pattern": "a" * 1_000})
    assert text.units(b'"%s"' % (b"a" * 10_000)) > 100 * find_bounds({"type": "string"}).units(b'"a"')


@pytest.mark.parametrize(
    ("pattern", "states"),
    [
        ("", 0),
        ("abc", 3),
        ("a{2,9}", 9),
        ("a{5,}", 5),
        ("(a{9}){9}", 81),
        ("((a{9})*){9}", 90),
        ("a{9}{9}", 81),
        ("{x}", 3),
        ("é", 2),
        ("[a-z]{1,63}", 63),
        (r"[\w.%+-]{1,64}", 64),
        (r"[\]\[]{2}", 2),
        ("[^@]{2}", 24),
        (".", 12),
        (r"\pL{3}0", 1801),
        (r"[\p{L}\p{N}]", 1212),
        (r"(?i)\pL", 2004),
        ("(?i:[Ā-ž])", 2036),
        ("[[a]b]", SATURATED),
        ("[a", SATURATED),
        ("(?x)a{ 3 }", SATURATED),
        ("(((a{1000}){1000}){1000}){1000}", SATURATED),
    ],
)
def test_states_are_counted_with_their_repeats(pattern: str, states: int) -> None:
    assert pattern_states(pattern) == states


@pytest.mark.parametrize("number", [b"1e400", b"-1E+999", b"1" * 400 + b".5", b"[[0, 1e400]]"])
def test_a_number_no_double_can_hold_fits_no_schema(number: bytes) -> None:
    [error] = violations(compile_schema({}), find_bounds({}), number)
    assert "double" in error.detail


@pytest.mark.parametrize("number", [b"1e300", b"1" * 400, b'"1e400"', b"1e-400"])
def test_other_large_numbers_are_judged(number: bytes) -> None:
    assert violations(compile_schema({}), find_bounds({}), number) == []
