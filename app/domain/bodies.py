"""Declaring, reading and refusing bodies.

A body is declared once, as a msgspec struct with its limits beside its types (`Meta`), so that parsing, validation and the OpenAPI
document cannot differ. msgspec stops at the first violation; `faults` then checks the whole value against the same declaration
and reports every violation. It runs on refused bodies only.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import inspect

from app.domain.errors import FieldError, invalid, pointer

MAX_FAULTS = 100
"""Most faults that one refusal names. A large body can have hundreds of thousands."""
RULE = "rule"
"""Key of `Meta(extra=...)`: the message that replaces the one for the type."""
ANY_JSON = "Any JSON (I-JSON, at most 128 levels deep)."
ContentHidden = Annotated[
    Literal[True] | msgspec.UnsetType,
    msgspec.Meta(description="`true`: the key may not read content, so all of it is null. Absent otherwise."),
]
"""Of a struct that shows payloads, results, excerpts, progress or error texts."""
AnyJson = Annotated[Any, msgspec.Meta(description=ANY_JSON)]

Declared = TypeVar("Declared")
_PATH = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?", re.DOTALL)
_MEMBER = re.compile(r"Object (contains unknown|missing required) field `(.*)`", re.DOTALL)


def read(value: Any, kind: type[Declared], where: str = "") -> Declared:
    """Convert a JSON value to the struct that declares it. Raises Refusal (invalid) with every violation."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise invalid(faults(value, kind, where) or field_errors(str(error))) from None


def faults(value: Any, kind: Any = None, where: str = "") -> list[FieldError]:
    """Return every violation in a value, or in a struct built in code, of its declared type."""
    return list(islice(_faults(value, _node(type(value) if kind is None else kind), where), MAX_FAULTS))


def sound_part(
    value: Any,
    found: Sequence[FieldError],
    kind: type[Declared],
    plain: Mapping[str, Any],
    stand_ins: Mapping[str, Any] = MappingProxyType({}),
) -> Declared | None:
    """Return a refused body without the fields in which a fault was found, so that its rules can be checked too.

    `plain` replaces what cannot be read from a value, `stand_ins` what was faulty. None: too little is left.
    """
    if not isinstance(value, Mapping):
        return None
    faulty = {error.pointer.split("/")[1] for error in found if error.pointer}
    sound = {name: given for name, given in value.items() if name not in faulty}
    stand = {name: given for name, given in stand_ins.items() if name in faulty}
    try:
        return msgspec.convert({**sound, **stand, **plain}, kind)
    except msgspec.ValidationError:
        return None


def with_more(found: Sequence[FieldError], more: Sequence[FieldError]) -> list[FieldError]:
    """Add violations of rules that types cannot express; they are reported for fields that are otherwise valid."""
    named = {error.pointer for error in found}
    return [*found, *(error for error in more if error.pointer not in named)]


def field_errors(message: str) -> list[FieldError]:
    """Translate msgspec's ``Expected `int`, got `str` - at `$.tags[2]` ``, which covers the first violation only."""
    match = _PATH.fullmatch(message)
    assert match is not None, "it matches any text"
    parts = re.findall(
        r"\[(\d+)\]|\.(\w+)", match["path"] or ""
    )  # `[...]`, an arbitrary key of an object, adds nothing
    where = pointer(*(index or name for index, name in parts))
    member = _MEMBER.fullmatch(match["what"])
    if member is not None:
        detail = "is required" if member[1] == "missing required" else "unknown field"
        return [FieldError(where + pointer(member[2]), detail)]
    return [FieldError(where, match["what"].replace("`", ""))]


_node: Callable[[Any], inspect.Type] = cache(inspect.type_info)


def _faults(value: Any, node: inspect.Type, where: str) -> Iterator[FieldError]:
    match node:
        case inspect.Metadata(type=inner, extra=extra):
            found = _faults(value, inner, where)
            if not extra or RULE not in extra:
                yield from found
            elif any(True for _ in found):
                yield FieldError(where, extra[RULE])
        case inspect.UnionType(types=types):
            yield from _union_faults(value, types, where)
        case inspect.StructType():
            yield from _struct_faults(value, node, where)
        case inspect.DictType(key_type=key_type, value_type=value_type):
            if not isinstance(value, Mapping):
                yield FieldError(where, "expected an object")
                return
            for name, member in value.items():
                yield from _faults(name, key_type, where + pointer(name))
                yield from _faults(member, value_type, where + pointer(name))
        case inspect.ListType(item_type=item_type) | inspect.VarTupleType(item_type=item_type):
            if not isinstance(value, list | tuple):
                yield FieldError(where, "expected an array")
                return
            yield from _length_faults(len(value), node, where, "items")
            for index, item in enumerate(value):
                yield from _faults(item, item_type, where + pointer(index))
        case _:
            yield from _scalar_faults(value, node, where)


def _union_faults(value: Any, types: Sequence[inspect.Type], where: str) -> Iterator[FieldError]:
    """Handle unions: of null, and of one other type or of a text and an object."""
    others = [kind for kind in types if not isinstance(kind, inspect.NoneType)]
    if value is msgspec.UNSET or (value is None and any(isinstance(kind, inspect.NoneType) for kind in types)):
        return
    found = [list(islice(_faults(value, kind, where), MAX_FAULTS)) for kind in others]
    if all(found):
        is_text = [
            isinstance(kind.type if isinstance(kind, inspect.Metadata) else kind, inspect.StrType) for kind in others
        ]
        yield from found[is_text.index(isinstance(value, str)) if isinstance(value, str) in is_text else 0]


def _struct_faults(value: Any, node: inspect.StructType, where: str) -> Iterator[FieldError]:
    if isinstance(value, node.cls):
        for field in node.fields:
            given = getattr(value, field.name)
            if given is not msgspec.UNSET:
                yield from _faults(given, field.type, where + pointer(field.encode_name))
        return
    if not isinstance(value, Mapping):
        yield FieldError(where, "expected an object")
        return
    known = {field.encode_name for field in node.fields}
    for field in node.fields:
        at = where + pointer(field.encode_name)
        if field.encode_name in value:
            yield from _faults(value[field.encode_name], field.type, at)
        elif field.required:
            yield FieldError(
                at, "is required (null is a valid payload)" if field.encode_name == "payload" else "is required"
            )
    if node.forbid_unknown_fields:
        yield from (FieldError(where + pointer(name), "unknown field") for name in value if name not in known)


def _scalar_faults(value: Any, node: inspect.Type, where: str) -> Iterator[FieldError]:
    match node:
        case inspect.StrType():
            if not isinstance(value, str):
                yield FieldError(where, "expected a string")
            else:
                yield from _length_faults(len(value), node, where, "characters")
                if node.pattern is not None and re.search(node.pattern, value) is None:
                    yield FieldError(where, f"does not match {node.pattern}")
        case inspect.IntType():
            if type(value) is not int or not _within(value, node):
                yield FieldError(where, f"expected an integer{_range(node)}")
        case inspect.FloatType():
            if type(value) not in (int, float) or not _within(value, node):
                yield FieldError(where, f"expected a number{_range(node)}")
        case inspect.BoolType():
            if not isinstance(value, bool):
                yield FieldError(where, "expected true or false")
        case inspect.LiteralType(values=values):
            if value not in values:
                named = ", ".join(str(one).lower() if one is True else str(one) for one in values)
                yield FieldError(where, f"expected {'one of ' if len(values) > 1 else ''}{named}")
        case inspect.EnumType(cls=cls):
            if not isinstance(value, str) or value not in {member.value for member in cls}:
                yield FieldError(where, "expected one of " + ", ".join(str(member.value) for member in cls))
        case inspect.NoneType():
            if value is not None:
                yield FieldError(where, "expected null")


def _within(number: float, node: inspect.IntType | inspect.FloatType) -> bool:
    """Check bounds, in a way that NaN is always out of bounds."""
    return (
        (node.ge is None or number >= node.ge)
        and (node.gt is None or number > node.gt)
        and (node.le is None or number <= node.le)
    )


def _range(node: inspect.IntType | inspect.FloatType) -> str:
    """Return the bounds in words. No type has both `ge` and `gt`."""
    low, high = node.gt if node.ge is None else node.ge, node.le
    if low is None:
        return "" if high is None else f" of at most {_plain(high)}"
    if node.ge is None:
        return f" above {_plain(low)}" + ("" if high is None else f", at most {_plain(high)}")
    return f" of at least {_plain(low)}" if high is None else f" from {_plain(low)} to {_plain(high)}"


def _plain(bound: float) -> str:
    return str(int(bound) if bound == int(bound) else bound)


def _length_faults(
    length: int, node: inspect.StrType | inspect.ListType | inspect.VarTupleType, where: str, unit: str
) -> Iterator[FieldError]:
    """Check lengths; minimum lengths are never more than one."""
    if node.min_length and length < node.min_length:
        yield FieldError(where, "must not be empty")
    if node.max_length is not None and length > node.max_length:
        comparison = "is longer than" if unit == "characters" else "has more than"
        yield FieldError(where, f"{comparison} {node.max_length} {unit}")
