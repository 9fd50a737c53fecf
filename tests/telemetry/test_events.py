"""Events are a promise to whoever alerts on them: golden names, and no call that says another field."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.telemetry import events

APP = Path(events.__file__).parents[1]
GOLDEN = Path(__file__).parent / "event_names.txt"


def test_names_levels_and_fields_are_the_golden_ones() -> None:
    rendered = "".join(
        f"{event.name} {event.level} {','.join(sorted(event.fields))}".rstrip() + "\n"
        for event in sorted(events.CATALOGUE.values(), key=lambda event: event.name)
    )
    assert rendered == GOLDEN.read_text()


def test_a_constant_is_named_like_its_event() -> None:
    for name, event in vars(events).items():
        if isinstance(event, events.Event):
            assert name == event.name.upper()


@pytest.mark.ci
def test_every_call_in_the_house_says_only_declared_fields() -> None:
    wrong = [
        f"{path}:{call.lineno} says {keyword.arg!r}, which none of {sorted(names)} declares"
        for path in APP.rglob("*.py")
        for call, names in emitted(path)
        for keyword in call.keywords
        if keyword.arg is not None and not any(keyword.arg in declared(name) for name in names)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_event_is_emitted_somewhere_in_the_house() -> None:
    emitted_by_calls = {name for path in APP.rglob("*.py") for _, names in emitted(path) for name in names}
    by_the_log_itself = {"LINES_LEFT_OUT"}  # made by its handler, which is behind every logger
    promised = {event.name.upper() for event in events.CATALOGUE.values()}
    assert promised - emitted_by_calls == by_the_log_itself


def declared(name: str) -> frozenset[str]:
    event: events.Event = getattr(events, name)
    return event.fields | events.COMMON


def emitted(path: Path) -> Iterator[tuple[ast.Call, set[str]]]:
    """Calls of emit(log, EVENT, …), and the events each may say: one, or the arms of a condition."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and len(node.args) > 1 and ast.unparse(node.func).endswith("emit"):
            names = {word for word in re.findall(r"[A-Z_]{3,}", ast.unparse(node.args[1])) if hasattr(events, word)}
            if names:
                yield node, names
