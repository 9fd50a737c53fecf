"""Forms that edit a JSON document field by field: what a field shows, what it means, and what two people changed at once.

A form carries what its fields showed (`was`). So only what somebody changed is sent on, and if somebody else has changed the same
field in the meantime, both are shown.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import msgspec

from app.domain.errors import FieldError, Refusal, pointer

Texts = Mapping[str, str]
"""What the fields of a form show, by name."""


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    words: str
    at: tuple[str, ...]
    """Where in the document."""
    kind: Literal["text", "integer", "number", "lines", "headers", "long"] = "text"
    """`lines`: a list of texts, one per line; `headers`: `name: value` per line; `long`: a text of many lines."""
    hint: str = ""
    group: str = ""
    """What the fields around it are about, too."""

    def text_of(self, document: Mapping[str, Any]) -> str:
        """Return the value in a document as the field shows it."""
        value: Any = document
        for part in self.at:
            value = value.get(part) if isinstance(value, Mapping) else None
        match value:
            case None:
                return ""
            case float() if value.is_integer():
                return str(int(value))
            case list() | tuple():
                return "\n".join(map(str, value))
            case Mapping():
                return "\n".join(f"{name}: {text}" for name, text in value.items())
        return str(value)

    def value_of(self, text: str) -> Any:
        """Return what a text means; None if it is empty. One that means nothing stays as it is, and is refused where values are
        checked."""
        match self.kind:
            case "long":
                return text or None
            case "lines":
                return [line.strip() for line in text.splitlines() if line.strip()]
            case "headers":
                pairs = (line.partition(":") for line in text.splitlines() if line.strip())
                return {name.strip(): value.strip() for name, _, value in pairs}
        text = text.strip()
        if self.kind in ("integer", "number"):
            return _number(text, whole=self.kind == "integer")
        return text or None


def _number(text: str, *, whole: bool) -> Any:
    try:
        found = int(text) if whole else float(text)
    except ValueError:
        return text or None
    return found if whole or math.isfinite(found) else text


def texts_of(fields: Iterable[Field], document: Mapping[str, Any]) -> dict[str, str]:
    return {one.name: one.text_of(document) for one in fields}


def put_at(document: dict[str, Any], at: Sequence[str], value: Any) -> None:
    """Put a value into a document; None takes it out, so that its default applies."""
    *above, last = at
    for part in above:
        inner = document.get(part)
        document[part] = document = dict(inner) if isinstance(inner, Mapping) else {}
    if value is None:
        document.pop(last, None)
    else:
        document[last] = value


class Difference(NamedTuple):
    words: str
    was: str
    now: str
    yours: str


@dataclass(frozen=True, slots=True)
class Edit:
    """What fields showed, show now, and were changed to."""

    was: Texts
    now: Texts
    yours: Texts
    names: Mapping[str, str] = field(default_factory=dict)
    """What fields are called."""

    @property
    def changed(self) -> dict[str, str]:
        """What this form changes."""
        return {name: text for name, text in self.yours.items() if text != self.was.get(name, "")}

    @property
    def merged(self) -> dict[str, str]:
        """What the fields would show if the changes were made now."""
        return {**self.now, **self.changed}

    @property
    def collides(self) -> bool:
        """Whether somebody else has changed a field that this form changes, to something else."""
        return any(self.now.get(name, "") not in (self.was.get(name, ""), text) for name, text in self.changed.items())

    @property
    def differences(self) -> list[Difference]:
        """Every field that somebody has changed."""
        names = dict.fromkeys([*self.was, *self.now, *self.yours])
        rows = [
            Difference(self.names.get(name, name), *(texts.get(name, "") for texts in (self.was, self.now, self.yours)))
            for name in names
        ]
        return [row for row in rows if not row.was == row.now == row.yours]


def was_of(form: Mapping[str, str]) -> dict[str, str]:
    """Return what a form showed. Raises Refusal (malformed)."""
    try:
        return msgspec.json.decode(form.get("was", ""), type=dict[str, str])
    except (msgspec.DecodeError, ValueError):
        raise Refusal("malformed", "the form has lost what it showed; go back, reload the page and try again") from None


def yours_of(form: Mapping[str, str], fields: Iterable[Field]) -> dict[str, str]:
    """Return the fields of a form that was sent. Browsers send line breaks as CR LF."""
    return {one.name: form[one.name].replace("\r\n", "\n") for one in fields if one.name in form}


def encoded(texts: Texts) -> str:
    return msgspec.json.encode(texts).decode()


def flattened(value: Any, at: str = "") -> dict[str, str]:
    """Return every value in a document as JSON, by pointer, without those that are null."""
    if isinstance(value, Mapping) and value:
        return {
            name: text for key, inner in value.items() for name, text in flattened(inner, at + pointer(key)).items()
        }
    return {} if value is None else {at: msgspec.json.encode(value).decode()}


def faults_of(refusal: Refusal, fields: Iterable[Field]) -> tuple[dict[str, str], list[FieldError]]:
    """Return what is wrong by field, and what is wrong elsewhere."""
    places = {pointer(*one.at): one.name for one in fields}
    found: dict[str, str] = {}
    others: list[FieldError] = []
    for error in refusal.errors or (FieldError("", refusal.detail),):
        name = next((places[at] for at in _upwards(error.pointer) if at in places), None)
        if name is None:
            others.append(error)
        else:
            found.setdefault(name, error.detail)
    return found, others


def _upwards(at: str) -> Iterable[str]:
    """Yield a pointer, and those of what it is in."""
    while at:
        yield at
        at = at.rpartition("/")[0]
