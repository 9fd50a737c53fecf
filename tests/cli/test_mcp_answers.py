"""What a tool answers: whole where it fits, cut where it does not, and never more than a model should read."""

import json
from typing import Any

import pytest

from app.cli.mcp_answers import CHARACTERS, answer


def nested(depth: int) -> Any:
    value: Any = "x" * 500
    for _ in range(depth):
        value = [value] * 6
    return value


def test_what_fits_is_whole_and_without_what_is_empty() -> None:
    given: Any = {"a": None, "b": [], "c": {}, "d": 0, "e": False, "f": "", "g": {"h": None, "i": [None, {}]}}
    assert json.loads(answer(given, "unused")) == {"d": 0, "e": False, "f": "", "g": {"i": [None, {}]}}


@pytest.mark.parametrize(
    "value",
    [
        {"text": "é" * 1_000_000},
        {"items": list(range(100_000))},
        {str(number): "x" * 300 for number in range(10_000)},
        {"k" * 100_000: 1},
        nested(6),
        ["x" * 3_000] * 40,
    ],
    ids=["text", "list", "fields", "name", "nested", "many"],
)
def test_what_does_not_fit_is_cut_and_says_so(value: Any) -> None:
    told = answer(value, "Here is how to go on.")
    assert len(told) <= CHARACTERS + 200
    assert "…" in told and told.endswith(
        "Cut: longer texts and lists are marked with …, and shown in part. Here is how to go on."
    )


def test_what_is_left_out_is_counted() -> None:
    assert answer(list(range(70))).startswith(f'[{",".join(str(number) for number in range(50))},"… 20 more"]\n')
    assert '… (98,000 more characters)"' in answer("x" * 100_000)
