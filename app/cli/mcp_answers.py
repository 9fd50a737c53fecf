"""What a tool answers: JSON that fits a model's context, and says what was left out."""

import json
from typing import Any

CHARACTERS = 16_000
"""An answer has at most so many, about 4,000 tokens, besides the line that says that something was cut."""
STEPS = ((50, 2_000), (20, 500), (10, 200), (5, 80))
"""How many entries of a list or an object, and characters of a text, are shown: the first pair with which the answer fits."""


def answer(value: Any, go_on: str = "") -> str:
    """Return the value as JSON, without what is empty. What does not fit is cut, and `go_on` says how to see it."""
    value = _without_empty(value)
    whole = _json(value)
    if len(whole) <= CHARACTERS and _cut(value, *STEPS[0]) == value:
        return whole
    shown = next((text for text in (_json(_cut(value, *step)) for step in STEPS) if len(text) <= CHARACTERS), None)
    shown = shown if shown is not None else _json(_cut(value, *STEPS[-1]))[:CHARACTERS] + "…"
    return f"{shown}\nCut: longer texts and lists are marked with …, and shown in part.{' ' + go_on if go_on else ''}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _without_empty(value: Any) -> Any:
    """Without fields that are null or hold nothing, which are most of a task's."""
    if isinstance(value, dict):
        return {name: _without_empty(one) for name, one in value.items() if one is not None and one not in ([], {})}
    if isinstance(value, list):
        return [_without_empty(one) for one in value]
    return value


def _cut(value: Any, entries: int, characters: int) -> Any:
    if isinstance(value, str) and len(value) > characters:
        return f"{value[:characters]}… ({len(value) - characters:,} more characters)"
    if isinstance(value, list):
        shown = [_cut(one, entries, characters) for one in value[:entries]]
        return shown if len(value) <= entries else [*shown, f"… {len(value) - entries:,} more"]
    if isinstance(value, dict):
        pairs = list(value.items())[:entries]
        more = {"…": f"{len(value) - entries:,} more fields"} if len(value) > entries else {}
        return {str(_cut(name, entries, characters)): _cut(one, entries, characters) for name, one in pairs} | more
    return value
