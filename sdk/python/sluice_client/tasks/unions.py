"""One of several types. Which one a JSON value is must be plain to see, or the union is refused where it is declared."""

from collections.abc import Sequence
from typing import Any

from sluice_client.tasks.codecs import ANY_TEXT, Codec
from sluice_client.tasks.containers import Record
from sluice_client.tasks.faults import Faults, fault, shown
from sluice_client.tasks.scalars import OneOf


class OneOfTypes(Codec):
    def __init__(self, members: Sequence[Codec]) -> None:
        self._members = sorted(
            members, key=lambda member: "number" in member.kinds
        )  # 3 is read as an int, if it may be
        self.noun = " or ".join(member.noun for member in members)
        self.kinds = frozenset().union(*(member.kinds for member in members))
        self._checked = False

    @property
    def plain(self) -> bool:  # type: ignore[override]
        return all(member.plain for member in self._members)

    def check(self) -> None:
        """Raises ValueError if two of its types cannot be told apart. Called when all records have their fields."""
        for index, one in enumerate(self._members):
            for other in self._members[:index]:
                if not _can_be_told_apart(one, other):
                    raise ValueError(
                        f"{other.noun} and {one.noun} cannot be told apart in JSON; give records a field with a Literal"
                        " of their own, or use one type"
                    )

    def encode(self, value: Any, at: str, faults: Faults) -> Any:
        return self._first("encode", value, at, faults)

    def decode(self, value: Any, at: str, faults: Faults) -> Any:
        return self._first("decode", value, at, faults)

    def _first(self, direction: str, value: Any, at: str, faults: Faults) -> Any:
        inner: list[Faults] = []
        for member in self._members:
            found: Faults = []
            read = getattr(member, direction)(value, at, found)
            if not found:
                return read
            inner.append(found)
        # what lies deeper is the better message: exactly one member took the value for one of its own
        deeper = [found for found in inner if any(one["pointer"] != at for one in found)]
        if len(deeper) == 1:
            faults += deeper[0]
        else:
            fault(faults, at, f"expected {self.noun}, got {shown(value)}")
        return None


def _can_be_told_apart(one: Codec, other: Codec) -> bool:
    return (
        not _overlap(one.kinds, other.kinds)
        or (one.plain and other.plain)
        or _values_differ(one, other)
        or _values_differ(other, one)
        or _are_tagged(one, other)
    )


def _overlap(kinds: frozenset[str], others: frozenset[str]) -> bool:
    if kinds & others:
        return True
    texts = {kind for kind in kinds | others if kind.startswith(ANY_TEXT)}
    both = any(kind in kinds for kind in texts) and any(kind in others for kind in texts)
    return both and ANY_TEXT in texts


def _values_differ(one: Codec, other: Codec) -> bool:
    """Whether the other reads none of the values that one can have."""
    if not isinstance(one, OneOf):
        return False
    for written in one.json:
        faults: Faults = []
        other.decode(written, "", faults)
        if not faults:
            return False
    return True


def _are_tagged(one: Codec, other: Codec) -> bool:
    """Whether both are records that require a field whose possible values differ."""
    if not (isinstance(one, Record) and isinstance(other, Record)):
        return False
    for name, field in one.fields.items():
        mine, yours = field.codec, other.fields.get(name)
        if (
            yours is not None
            and isinstance(mine, OneOf)
            and isinstance(yours.codec, OneOf)
            and _values_differ(mine, yours.codec)
        ):
            return True
    return False
