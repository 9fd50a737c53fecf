"""What is wrong with a definitions file, in words that help: YAML's own seldom do."""

import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Fault:
    line: int
    pointer: str
    detail: str


class Faults(Exception):
    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(fault.detail for fault in faults))
        self.faults = faults


def why(error: Any, text: str) -> Fault:
    """The fault behind PyYAML's MarkedYAMLError."""
    mark = error.problem_mark or error.context_mark
    problem, context = error.problem or "", error.context or ""
    if "alias" in context or "undefined alias" in problem:
        mark = error.context_mark or mark
        return Fault(mark.line + 1, "", _begins_with("*", "an alias", _value_at(text, mark)))
    line = _line(text, mark.line)
    if "'\\t'" in problem or re.match(r" *\t", line):
        return Fault(mark.line + 1, "", "a tab: YAML is indented with spaces only")
    if found := re.match(r"found character '([@`%])' that cannot start any token", problem):
        return Fault(mark.line + 1, "", _begins_with(found[1], "reserved", _value_at(text, mark)))
    if "flow" in context and "${" in line:
        return Fault(mark.line + 1, "", 'within { } and [ ], a variable must be quoted: "${NAME}"')
    if problem == "mapping values are not allowed here":
        detail = "a colon is not allowed here: quote text that contains ': ', and check the indentation"
        return Fault(mark.line + 1, "", detail)
    if "expected a single document" in context:
        return Fault(mark.line + 1, "", "a second document (---) begins here; a file can have only one")
    return Fault(mark.line + 1, "", " ".join(part for part in (context, problem) if part))


def _begins_with(character: str, what: str, value: str) -> str:
    quoted = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"to YAML, text that begins with {character} is {what}; quote it: {quoted}"


def _line(text: str, number: int) -> str:
    lines = text.splitlines()
    return lines[number] if number < len(lines) else ""


def _value_at(text: str, mark: Any) -> str:
    """The text from there to the end of the line, without a comment."""
    return re.split(r"\s#", _line(text, mark.line)[mark.column :])[0].strip()
