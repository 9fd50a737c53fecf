"""Tasks that are functions: `@sluice.task(…)`."""

import inspect
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from typing import Any, TypeVar

from sluice_client.context import Context
from sluice_client.tasks.annotations import signature_of
from sluice_client.tasks.codecs import JSON, Codec
from sluice_client.tasks.containers import Field, decode_members, encode_members
from sluice_client.tasks.definitions import Arguments, Definition, check_if_known
from sluice_client.tasks.faults import DefinitionError, Faults
from sluice_client.tasks.payloads import Unserialisable, codec_of, hints_of

R = TypeVar("R")
_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class FunctionDefinition(Definition[R]):
    """The payload is an object of the arguments that were given, by the names of the parameters.

    A parameter with the annotation Context, wherever it stands, is no argument: it gets the context of the running task.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        options: Mapping[str, Any],
        *,
        name: str | None = None,
        names: Mapping[str, Any] | None = None,
    ) -> None:
        """`names` are the local names where it is declared, for annotations that are strings. Raises DefinitionError."""
        where = check_function(fn)
        super().__init__(
            fn.__name__ if name is None else name,
            options,
            is_async=inspect.iscoroutinefunction(fn),
            where=where,
        )
        self.fn = fn
        self._names = names or {}
        signature = signature_of(fn)
        self._context = context_parameter(signature, fn, self._names, where)
        kept = [one for one in signature.parameters.values() if one.name != self._context]
        self._all = signature
        self._signature = signature.replace(parameters=kept)
        check_kinds(signature, where)
        self.check()
        check_if_known(self.check_types)

    @property
    def source(self) -> tuple[str, int]:
        code = inspect.unwrap(self.fn).__code__
        return code.co_filename, code.co_firstlineno

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(self._signature.parameters)

    def bind(self, *args: Any, **kwargs: Any) -> Arguments:
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}") from None
        given = frozenset(bound.arguments)
        bound.apply_defaults()
        return Arguments(bound.arguments, given)

    def call(self, arguments: Arguments, ctx: Context) -> Awaitable[R] | R:
        by_place, by_name = [], {}
        for name, parameter in self._all.parameters.items():
            value = ctx if name == self._context else arguments.values[name]
            if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
                by_place.append(value)
            else:
                by_name[name] = value
        made: Awaitable[R] | R = self.fn(*by_place, **by_name)
        return made

    @cached_property
    def fields(self) -> Mapping[str, Field]:
        """Its parameters and their types. Raises DefinitionError."""
        hints = resolved(self.fn, self._names, self.where)
        return {
            name: Field(
                name,
                codec_for(hints.get(name, Any), self._names, f"{self.where}: the parameter {name}"),
                parameter.default is inspect.Parameter.empty,
            )
            for name, parameter in self._signature.parameters.items()
        }

    def read_types(self) -> None:
        _ = self.fields

    def _result(self) -> Codec:
        return result_codec(self.fn, self._names, self.where)

    def _write(self, arguments: Arguments, faults: Faults) -> Any:
        given = {name: arguments.values[name] for name in self.parameters if name in arguments.given}
        return encode_members(self.fields, given, "", faults)

    def _read(self, payload: object, faults: Faults) -> Arguments:
        members = decode_members(self.fields, payload, "the arguments", "", faults)
        bound = inspect.BoundArguments(self._signature, OrderedDict(members))
        bound.apply_defaults()
        return Arguments(bound.arguments, frozenset(members))


def check_function(fn: Any) -> str:
    """Return where a function is, for messages. Raises DefinitionError for what is not a plain function."""
    where = f"{getattr(fn, '__module__', '?')}.{getattr(fn, '__qualname__', None) or repr(fn)}"
    if not inspect.isfunction(fn):
        raise DefinitionError(f"{where}: a task is a function (def or async def), not {type(fn).__name__}")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise DefinitionError(f"{where}: a task returns once; it cannot yield")
    if fn.__name__ == "<lambda>":
        raise DefinitionError(f"{where}: a lambda has no name and no annotations; write a function")
    around = fn.__qualname__.rpartition(".")[0]
    if around and not around.endswith("<locals>"):
        raise DefinitionError(
            f"{where}: a method cannot be a task, because its object would not be there; write a function"
        )
    return where


def check_kinds(signature: inspect.Signature, where: str) -> None:
    """Raises DefinitionError for *args and **kwargs."""
    for parameter in signature.parameters.values():
        if parameter.kind in _MANY:
            stars = "*" if parameter.kind is inspect.Parameter.VAR_POSITIONAL else "**"
            raise DefinitionError(f"{where}: {stars}{parameter.name} has no names for a payload; list the parameters")


def context_parameter(
    signature: inspect.Signature, fn: Callable[..., Any], names: Mapping[str, Any], where: str
) -> str | None:
    """Return the name of the parameter that takes the context: the one with the annotation Context, or `ctx` without any."""
    found = [
        name
        for name, parameter in signature.parameters.items()
        if _is_context(parameter.annotation, fn, names)
        or (name == "ctx" and parameter.annotation is inspect.Parameter.empty)
    ]
    if len(found) > 1:
        raise DefinitionError(f"{where}: {' and '.join(found)} both take the context; one is enough")
    return found[0] if found else None


def _is_context(annotation: Any, fn: Callable[..., Any], names: Mapping[str, Any]) -> bool:
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, getattr(fn, "__globals__", {}), dict(names))  # noqa: S307
        except Exception:
            return str(annotation).rpartition(".")[2] == "Context"  # imported for type checkers alone
    return annotation is Context


def resolved(fn: Any, names: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the annotations of a function or a class. Raises DefinitionError, caused by NameError if a name does not exist."""
    try:
        return hints_of(fn, names)
    except NameError as error:
        raise DefinitionError(
            f"{where}: an annotation cannot be resolved: {error}; import it at run time, too"
        ) from error


def codec_for(annotation: Any, names: Mapping[str, Any], what: str) -> Codec:
    """Return the codec of an annotation. Raises DefinitionError, caused by NameError if a name does not exist."""
    try:
        return codec_of(annotation, names)
    except Unserialisable as error:
        raise DefinitionError(f"{what}: {error}") from None
    except NameError as error:
        raise DefinitionError(
            f"{what}: an annotation cannot be resolved: {error}; import it at run time, too"
        ) from error


def result_codec(fn: Callable[..., Any], names: Mapping[str, Any], where: str) -> Codec:
    hints = resolved(fn, names, where)
    return codec_for(hints["return"], names, f"{where}: the result") if "return" in hints else JSON
