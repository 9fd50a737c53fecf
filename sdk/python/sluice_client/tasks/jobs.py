"""Tasks that are classes: their fields are the payload, and `run` does the work."""

import dataclasses
import inspect
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from sluice_client.context import Context
from sluice_client.tasks.annotations import annotations_of, signature_of
from sluice_client.tasks.codecs import Codec
from sluice_client.tasks.definitions import Arguments, Definition, check_if_known
from sluice_client.tasks.faults import DefinitionError, Faults, PayloadInvalid
from sluice_client.tasks.functions import check_kinds, codec_for, context_parameter, resolved, result_codec
from sluice_client.tasks.libraries import is_of_library
from sluice_client.tasks.options import Options

if TYPE_CHECKING:
    from typing_extensions import Unpack

JobT = TypeVar("JobT", bound=type[Any])
R = TypeVar("R")


class JobDefinition(Definition[R]):
    """A job class. Its payload is the object that its fields make up, as its library writes it if it has one."""

    def __init__(
        self, cls: type[Any], root: type[Any], options: Mapping[str, Any], *, name: str | None, names: Mapping[str, Any]
    ) -> None:
        """`root` is the class that makes classes jobs. `names` are the local names where it is declared, for annotations that
        are strings. Raises DefinitionError."""
        # that of its method, if it has it: a class that @dataclass(slots=True) makes gets its qualified name later
        own = getattr(vars(cls).get("run"), "__qualname__", "").rpartition(".")[0]
        where = f"{cls.__module__}.{own or cls.__qualname__}"
        self.cls = cls
        self._root = root
        self._names = names
        self._run: Callable[..., Any] = cls.run
        if not inspect.isfunction(self._run):
            raise DefinitionError(f"{where}: run must be a method (def or async def)")
        super().__init__(name or cls.__name__, options, is_async=inspect.iscoroutinefunction(self._run), where=where)
        signature = signature_of(self._run)
        self._context = context_parameter(signature, self._run, names, where)
        self._by_name = (
            self._context is not None and signature.parameters[self._context].kind is inspect.Parameter.KEYWORD_ONLY
        )
        takes = [one for one in list(signature.parameters)[1:] if one != self._context]
        if takes:
            raise DefinitionError(f"{where}: run takes the context at most, not {', '.join(takes)}; make them fields")
        check_kinds(signature, where)
        self.check()
        if is_of_library(cls):
            check_if_known(lambda: self.result)
        else:
            check_if_known(self._check_types)
            # on Job itself, a Struct would not have it
            cls.__new__ = _new  # type: ignore[assignment]

    @property
    def source(self) -> tuple[str, int]:
        code = inspect.unwrap(self._run).__code__
        return code.co_filename, code.co_firstlineno

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of its fields."""
        for attribute in ("model_fields", "__struct_fields__", "__dataclass_fields__"):
            fields = getattr(self.cls, attribute, None)
            if fields:
                return tuple(fields)
        return tuple(
            name
            for base in reversed(self.cls.__mro__)
            if base is not object
            for name, annotation in annotations_of(base).items()
            if not str(annotation).startswith(("typing.ClassVar", "ClassVar"))
        )

    def prepare(self) -> None:
        """Make it a dataclass, unless it is one or its library makes its fields. Not before it is used: a decorator may come."""
        if is_of_library(self.cls):
            return
        for cls in reversed(self.cls.__mro__):
            if issubclass(cls, self._root) and cls is not self._root and "__dataclass_fields__" not in vars(cls):
                try:
                    dataclasses.dataclass(cls)
                except TypeError as error:
                    raise DefinitionError(f"{self.where}: {error}") from None

    def bind(self, *args: Any, **kwargs: Any) -> Arguments:
        try:
            return self._of(self.cls(*args, **kwargs))
        except ValueError as error:
            raise PayloadInvalid(self._faults_of(error), f"the payload of {self.name}") from error

    def call(self, arguments: Arguments, ctx: Context) -> Awaitable[R] | R:
        made: Awaitable[R] | R
        if self._context is None:
            made = self._run(arguments.instance)
        elif self._by_name:
            made = self._run(arguments.instance, **{self._context: ctx})
        else:
            made = self._run(arguments.instance, ctx)
        return made

    def _check_types(self) -> None:
        """As `read_types`, without making it a dataclass."""
        hints = resolved(self.cls, self._names, self.where)
        for name in self.parameters:
            codec_for(hints.get(name, Any), self._names, f"{self.where}: the field {name}")
        _ = self.result

    @cached_property
    def record(self) -> Codec:
        """The type of its payload. Raises DefinitionError."""
        self.prepare()
        return codec_for(self.cls, self._names, self.where)

    def read_types(self) -> None:
        _ = self.record

    def _result(self) -> Codec:
        return result_codec(self._run, self._names, self.where)

    def _write(self, arguments: Arguments, faults: Faults) -> Any:
        return self.record.encode(arguments.instance, "", faults)

    def _read(self, payload: object, faults: Faults) -> Arguments:
        instance = self.record.decode(payload, "", faults)
        return Arguments({}, frozenset()) if faults else self._of(instance)

    def _of(self, instance: Any) -> Arguments:
        values = {name: getattr(instance, name) for name in self.parameters}
        return Arguments(values, frozenset(values), instance)

    def _faults_of(self, error: ValueError) -> Faults:
        """What the class itself refused, with pydantic's pointers if it has them."""
        pydantic = sys.modules.get("pydantic")
        if pydantic is not None and isinstance(error, pydantic.ValidationError):
            return [
                {"pointer": "".join(f"/{step}" for step in one["loc"]), "detail": one["msg"]} for one in error.errors()
            ]
        return [{"pointer": "", "detail": str(error)}]


def _new(cls: Any, *_args: Any, **_kwargs: Any) -> Any:
    cls.__sluice_task__.definition.prepare()
    return object.__new__(cls)


def job(*, queue: str, name: str | None = None, **options: "Unpack[Options]") -> Callable[[JobT], JobT]:
    """Give a job its options, where they cannot stand in its class line. Raises DefinitionError."""

    def declare(cls: JobT) -> JobT:
        if not hasattr(cls, "__sluice_declare__"):
            raise DefinitionError(f"{cls.__module__}.{cls.__qualname__}: a job is a class with Job as its first base")
        cls.__sluice_declare__({"queue": queue, "name": name, **options})
        return cls

    return declare
