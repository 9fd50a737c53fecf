"""Lists, tuples, sets, dictionaries, and records: dataclasses, TypedDicts and NamedTuples."""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sluice_client.tasks.codecs import ANY_TEXT, INTEGER, Codec, Integer
from sluice_client.tasks.faults import Faults, fault, shown, within

_INTEGER_KEY = re.compile(r"0|-?[1-9]\d*", re.ASCII)
_LIST = frozenset({"list"})
_OBJECT = frozenset({"object"})


class Items(Codec):
    """A list, a set, or a tuple of any length."""

    noun = "a list"
    kinds = _LIST

    def __init__(
        self, item: Codec, build: Callable[[Sequence[Any]], Any], accepted: type[Any] | tuple[type[Any], ...]
    ) -> None:
        self._item, self._build, self._accepted = item, build, accepted
        self._sorted = build in (set, frozenset)
        if build is not list:
            self.noun = f"a {build.__name__}"

    @property
    def plain(self) -> bool:  # type: ignore[override]
        return self._build is list and self._item.plain

    def encode(self, value: Any, at: str, faults: Faults) -> Any:
        if not isinstance(value, self._accepted) or isinstance(value, str):
            self.miss(value, at, faults)
            return None
        found = len(faults)
        items = [self._item.encode(item, within(at, index), faults) for index, item in enumerate(value)]
        # equal sets give equal bytes, so that an enqueue can be repeated
        return sorted(items, key=_order) if self._sorted and len(faults) == found else items

    def decode(self, value: Any, at: str, faults: Faults) -> Any:
        if not isinstance(value, list):
            fault(faults, at, f"expected a list, got {shown(value)}")
            return None
        found = len(faults)
        items = [self._item.decode(item, within(at, index), faults) for index, item in enumerate(value)]
        if len(faults) > found:
            return None
        try:
            return self._build(items)
        except TypeError as error:
            fault(faults, at, str(error))
            return None


def _order(item: Any) -> str:
    return json.dumps(item, sort_keys=True)


class Row(Codec):
    """A tuple of a fixed length, or a NamedTuple; the last of its items may have defaults."""

    kinds = _LIST

    def __init__(self, items: Sequence[Codec], cls: type[Any], least: int) -> None:
        self.noun = f"a {cls.__name__} of {len(items)} items"
        self._items, self._class, self._least = items, cls, least

    def encode(self, value: Any, at: str, faults: Faults) -> Any:
        if type(value) is not self._class or len(value) != len(self._items):
            self.miss(value, at, faults)
            return None
        return [
            item.encode(one, within(at, i), faults)
            for i, (item, one) in enumerate(zip(self._items, value, strict=False))
        ]

    def decode(self, value: Any, at: str, faults: Faults) -> Any:
        if not isinstance(value, list) or not self._least <= len(value) <= len(self._items):
            fault(faults, at, f"expected a list of {len(self._items)} items")
            return None
        items = [
            item.decode(one, within(at, i), faults)
            for i, (item, one) in enumerate(zip(self._items, value, strict=False))
        ]
        return tuple(items) if self._class is tuple else _made(self._class, items, {}, at, faults)


class Keyed(Codec):
    """A dictionary. Keys that are not strings are written as the strings that their JSON is."""

    noun = "an object"
    kinds = _OBJECT

    def __init__(self, key: Codec, value: Codec) -> None:
        """Raises ValueError if the keys cannot be strings."""
        if not all(kind.startswith(ANY_TEXT) or kind == "integer" for kind in key.kinds):
            raise ValueError(f"its keys would be {key.noun}, and in JSON they are strings")
        self._key, self._value = key, value
        self._numbers = "integer" in key.kinds
        if self._numbers and not isinstance(key, Integer) and len(key.kinds) > 1:
            raise ValueError("its keys would be strings and integers, which cannot be told apart in JSON")

    @property
    def plain(self) -> bool:  # type: ignore[override]
        return self._key.plain and not self._numbers and self._value.plain

    def encode(self, value: Any, at: str, faults: Faults) -> Any:
        if not isinstance(value, Mapping):
            self.miss(value, at, faults)
            return None
        return {
            str(self._key.encode(key, at, faults)): self._value.encode(one, within(at, str(key)), faults)
            for key, one in value.items()
        }

    def decode(self, value: Any, at: str, faults: Faults) -> Any:
        if not isinstance(value, dict):
            self.miss(value, at, faults)
            return None
        read = {}
        for text, one in value.items():
            inner = within(at, text)
            key: Any = text
            if self._numbers:
                if _INTEGER_KEY.fullmatch(text) is None or len(text) > 4300:
                    fault(faults, inner, "expected an integer as the key")
                    continue
                key = INTEGER.decode(int(text), inner, faults)
            found = len(faults)
            key = self._key.decode(key, inner, faults)
            one = self._value.decode(one, inner, faults)
            if len(faults) == found:
                read[key] = one
        return read


@dataclass(frozen=True)
class Field:
    name: str
    codec: Codec
    required: bool


class Record(Codec):
    """A dataclass or a TypedDict: an object with known members. Unknown ones are refused."""

    kinds = _OBJECT

    def __init__(self, cls: type[Any], noun: str, *, mapping: bool) -> None:
        self._class, self._mapping = cls, mapping
        self.noun = noun
        self.fields: dict[str, Field] = {}
        """Filled in afterwards: a record may contain itself."""

    def encode(self, value: Any, at: str, faults: Faults) -> Any:
        if self._mapping:
            if not isinstance(value, dict):
                self.miss(value, at, faults)
                return None
            members = value
        else:
            if type(value) is not self._class:
                self.miss(value, at, faults)
                return None
            members = {name: getattr(value, name) for name in self.fields}
        return encode_members(self.fields, members, at, faults)

    def decode(self, value: Any, at: str, faults: Faults) -> Any:
        found = len(faults)
        members = decode_members(self.fields, value, self.noun, at, faults)
        if len(faults) > found:
            return None
        return members if self._mapping else _made(self._class, (), members, at, faults)


def encode_members(fields: Mapping[str, Field], members: Mapping[str, Any], at: str, faults: Faults) -> dict[str, Any]:
    """Return the members in the order of the fields, so that equal records give equal bytes."""
    check_names(fields, members, at, faults)
    return {
        name: field.codec.encode(members[name], within(at, name), faults)
        for name, field in fields.items()
        if name in members
    }


def decode_members(fields: Mapping[str, Field], value: Any, noun: str, at: str, faults: Faults) -> dict[str, Any]:
    """Return the members that are there."""
    if not isinstance(value, dict):
        fault(faults, at, f"expected {noun} as an object, got {shown(value)}")
        return {}
    check_names(fields, value, at, faults)
    return {
        name: field.codec.decode(value[name], within(at, name), faults)
        for name, field in fields.items()
        if name in value
    }


def check_names(fields: Mapping[str, Field], names: Collection[str], at: str, faults: Faults) -> None:
    for name in names:
        if name not in fields:
            fault(faults, within(at, str(name)), f"is unknown; expected {', '.join(fields) or 'no members'}")
    for name, field in fields.items():
        if field.required and name not in names:
            fault(faults, within(at, name), "is missing")


def _made(cls: type[Any], items: Sequence[Any], members: Mapping[str, Any], at: str, faults: Faults) -> Any:
    """Construct what a list or an object stands for. What the class itself refuses is a fault of it."""
    try:
        return cls(*items, **members)
    except (TypeError, ValueError) as error:
        fault(faults, at, str(error) or f"is refused by {cls.__name__}")
        return None
