"""From annotations to codecs: how the arguments and the result of a task become JSON and are read back."""

import collections.abc
import dataclasses
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from sluice_client.tasks.codecs import JSON, Codec
from sluice_client.tasks.containers import Field, Items, Keyed, Record, Row
from sluice_client.tasks.libraries import codec_of_library, codec_of_metadata
from sluice_client.tasks.scalars import BY_TYPE, enumeration, literal
from sluice_client.tasks.unions import OneOfTypes

NONE: Mapping[str, Any] = {}
_UNIONS = (Union, types.UnionType)
_LISTS = (list, collections.abc.Sequence)
_SETS = {set: set, frozenset: frozenset, collections.abc.Set: frozenset}
_MAPPINGS = (dict, collections.abc.Mapping)
_QUALIFIERS = ("Required", "NotRequired", "ReadOnly")


class Unserialisable(Exception):
    """An annotation that no JSON stands for, with the reason."""


def codec_of(annotation: Any, names: Mapping[str, Any] = NONE) -> Codec:
    """Return the codec of an annotation. `names` are the local names that its forward references may use.

    Raises Unserialisable, and NameError for a forward reference to what does not exist (yet).
    """
    reading = _Reading(names)
    try:
        codec = reading.codec(annotation, {})
        for union in reading.unions:
            union.check()
    except ValueError as error:
        name = name_of(annotation)
        raise Unserialisable(str(error) if str(error).startswith(name) else f"{name}: {error}") from None
    return codec


def hints_of(owner: Any, names: Mapping[str, Any] = NONE) -> dict[str, Any]:
    """Return the annotations of a function or a class, with strings resolved. Raises NameError."""
    return typing.get_type_hints(owner, localns=dict(names), include_extras=True)


def name_of(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)


class _Later(Codec):
    """Stands for a named type alias within itself."""

    target: Codec

    def encode(self, value: Any, at: str, faults: Any) -> Any:
        return self.target.encode(value, at, faults)

    def decode(self, value: Any, at: str, faults: Any) -> Any:
        return self.target.decode(value, at, faults)


class _Reading:
    """One annotation being read. Types that contain themselves are met once, and then found in `met`."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = names
        self._met: dict[Any, Codec] = {}
        self.unions: list[OneOfTypes] = []

    def codec(self, annotation: Any, variables: Mapping[Any, Any]) -> Codec:
        """`variables` are the arguments of the generic type that the annotation stands in."""
        if annotation is Any:
            return JSON
        if isinstance(annotation, TypeVar):
            if annotation not in variables:
                raise ValueError(f"the type variable {annotation} stands for no type")
            return self.codec(variables[annotation], {})
        try:
            simple = BY_TYPE.get(annotation)
        except TypeError:  # not hashable
            simple = None
        return simple or codec_of_library(annotation) or self._composed(annotation, variables)

    def _composed(self, annotation: Any, variables: Mapping[Any, Any]) -> Codec:
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return codec_of_metadata(annotation) or self.codec(arguments[0], variables)
        if origin is Literal:
            return literal(arguments)
        if origin in _UNIONS:
            return self._union(arguments, variables)
        if hasattr(annotation, "__supertype__"):  # NewType
            return self.codec(annotation.__supertype__, variables)
        if type(annotation).__name__ == "TypeAliasType":
            return self._alias(annotation, variables)
        if getattr(origin, "_name", None) in _QUALIFIERS:
            return self.codec(arguments[0], variables)
        cls = origin or annotation
        return self._container(cls, arguments, variables) or self._class(annotation, cls, arguments, variables)

    def _union(self, arguments: tuple[Any, ...], variables: Mapping[Any, Any]) -> Codec:
        union = OneOfTypes([self.codec(argument, variables) for argument in arguments])
        self.unions.append(union)
        return union

    def _alias(self, annotation: Any, variables: Mapping[Any, Any]) -> Codec:
        if annotation in self._met:
            return self._met[annotation]
        later = self._met[annotation] = _Later()
        later.target = self.codec(annotation.__value__, variables)
        return later.target

    def _container(self, cls: Any, arguments: tuple[Any, ...], variables: Mapping[Any, Any]) -> Codec | None:
        def part(index: int) -> Codec:
            return self.codec(arguments[index], variables) if index < len(arguments) else JSON

        if cls in _LISTS:
            return Items(part(0), list, list if cls is list else (list, tuple))
        if cls in _SETS:
            return Items(part(0), _SETS[cls], _SETS[cls] if cls in (set, frozenset) else (set, frozenset))
        if cls in _MAPPINGS:
            return Keyed(part(0) if arguments else BY_TYPE[str], part(1))
        if cls is tuple:
            if not arguments or (len(arguments) == 2 and arguments[1] is Ellipsis):
                return Items(part(0), tuple, tuple)
            items = [] if arguments == ((),) else [self.codec(argument, variables) for argument in arguments]
            return Row(items, tuple, len(items))
        return None

    def _class(self, annotation: Any, cls: Any, arguments: tuple[Any, ...], variables: Mapping[Any, Any]) -> Codec:
        if not isinstance(cls, type):
            raise ValueError(f"{name_of(annotation)} cannot become JSON")
        if issubclass(cls, Enum):
            return enumeration(cls)
        given = {
            variable: variables.get(argument, argument) if isinstance(argument, TypeVar) else argument
            for variable, argument in zip(getattr(cls, "__parameters__", ()), arguments, strict=False)
        }
        key = (cls, tuple(given.values()))
        if key in self._met:
            return self._met[key]
        if dataclasses.is_dataclass(cls):
            return self._dataclass(key, cls, given)
        if issubclass(cls, tuple) and hasattr(cls, "_fields"):
            hints = hints_of(cls, self._names)
            items = [self.codec(hints[name], given) for name in cls._fields]
            return Row(items, cls, len(items) - len(getattr(cls, "_field_defaults", ())))
        if issubclass(cls, dict) and hasattr(cls, "__total__"):
            return self._typed_dict(key, cls, given)
        raise ValueError(
            f"{name_of(annotation)} cannot become JSON; use a dataclass, a pydantic model, a msgspec struct, or pass an id"
        )

    def _dataclass(self, key: Any, cls: type[Any], given: Mapping[Any, Any]) -> Codec:
        record = self._met[key] = Record(cls, cls.__name__, mapping=False)
        hints = hints_of(cls, self._names)
        for field in dataclasses.fields(cls):
            if field.init:
                required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
                record.fields[field.name] = Field(field.name, self._member(cls, field.name, hints, given), required)
        return record

    def _typed_dict(self, key: Any, cls: Any, given: Mapping[Any, Any]) -> Codec:
        record = self._met[key] = Record(cls, cls.__name__, mapping=True)
        hints = hints_of(cls, self._names)
        for name in hints:
            qualifier = getattr(get_origin(hints[name]), "_name", None)
            required = qualifier != "NotRequired" and (qualifier == "Required" or name in cls.__required_keys__)
            record.fields[name] = Field(name, self._member(cls, name, hints, given), required)
        return record

    def _member(self, cls: type[Any], name: str, hints: Mapping[str, Any], given: Mapping[Any, Any]) -> Codec:
        try:
            return self.codec(hints[name], given)
        except ValueError as error:
            raise ValueError(f"{cls.__name__}.{name}: {error}") from None
