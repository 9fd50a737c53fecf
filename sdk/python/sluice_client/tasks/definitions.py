"""What a task is: its name, its options, and how its arguments and its result become JSON and are read back."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from sluice_client.context import Context
from sluice_client.tasks.codecs import Codec
from sluice_client.tasks.faults import DefinitionError, Faults, PayloadInvalid, fault
from sluice_client.tasks.options import DECLARED, TEMPLATES, check_options, fields_of
from sluice_client.tasks.templates import Template

R = TypeVar("R")
MAX_NAME = 255


@dataclass(frozen=True)
class Arguments:
    """The arguments of one call, by parameter."""

    values: Mapping[str, Any]
    """All of them, defaults included."""
    given: frozenset[str]
    """Those that are in the payload."""
    instance: object = None
    """The job that they make up, for jobs."""


class Definition(ABC, Generic[R]):
    """A task as it was declared. `R` is what it results in.

    Its name is the `type` of its tasks. Annotations that name what does not exist yet are read when they are needed.
    """

    def __init__(self, name: str, options: Mapping[str, Any], *, is_async: bool, where: str) -> None:
        self.name = name
        self.options = dict(options)
        self.is_async = is_async
        self.where = where
        """Where it was declared, for messages."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} on queue {self.queue}>"

    @property
    def queue(self) -> str:
        return str(self.options["queue"])

    @property
    @abstractmethod
    def source(self) -> tuple[str, int] | None:
        """The file and the line where it begins, if it has them."""

    def replaces(self, other: "Definition[Any]") -> bool:
        """Whether it is the other one, loaded again: by a reload, a notebook or a test, not a second one in the same file."""
        if self.where != other.where or type(self) is not type(other):
            return "<locals>" in self.where and "<locals>" in other.where
        mine, others = self.source, other.source
        return mine is None or others is None or mine == others or mine[0] != others[0]

    @property
    @abstractmethod
    def parameters(self) -> tuple[str, ...]:
        """The names of its parameters, without the context."""

    @abstractmethod
    def read_types(self) -> None:
        """Read the annotations of its arguments. Raises DefinitionError if one has no JSON or cannot be resolved."""

    @cached_property
    def result(self) -> Codec:
        """The type of its result. Raises DefinitionError as `read_types` does."""
        return self._result()

    @cached_property
    def enqueue_fields(self) -> dict[str, Any]:
        return fields_of(self.options)

    @abstractmethod
    def bind(self, *args: Any, **kwargs: Any) -> Arguments:
        """Return the arguments of a call. Raises TypeError as the call itself would."""

    @abstractmethod
    def call(self, arguments: Arguments, ctx: Context) -> Awaitable[R] | R:
        """Run it: an awaitable if it is async, else its result."""

    @abstractmethod
    def _write(self, arguments: Arguments, faults: Faults) -> Any:
        """Return the payload."""

    @abstractmethod
    def _read(self, payload: object, faults: Faults) -> Arguments:
        """Return the arguments; of no use if there are faults."""

    @abstractmethod
    def _result(self) -> Codec: ...

    def payload(self, arguments: Arguments) -> Any:
        """Return the payload for these arguments, ready for JSON. Raises PayloadInvalid if they do not fit."""
        return self._turned(lambda faults: self._write(arguments, faults), f"the payload of {self.name}")

    def arguments(self, payload: object) -> Arguments:
        """Return the arguments that a payload is. Raises PayloadInvalid if it does not fit."""
        read: Arguments = self._turned(lambda faults: self._read(payload, faults), f"the payload of {self.name}")
        return read

    def encode(self, result: object) -> Any:
        """Return a result, ready for JSON. Raises PayloadInvalid if it does not fit."""
        return self._turned(lambda faults: self.result.encode(result, "", faults), f"the result of {self.name}")

    def decode(self, result: object) -> R:
        """Return the result that this JSON is. Raises PayloadInvalid if it does not fit."""
        read: R = self._turned(lambda faults: self.result.decode(result, "", faults), f"the result of {self.name}")
        return read

    def keys(self, options: Mapping[str, Any], arguments: Arguments) -> dict[str, str]:
        """Return the fields of an enqueue that are made from arguments. Raises ValueError."""
        return {
            field: Template(options[name]).fill(arguments.values)
            for name, field in TEMPLATES.items()
            if options.get(name) is not None
        }

    def check(self) -> None:
        """Raises DefinitionError for what is wrong with its name and options."""
        if not self.name or len(self.name) > MAX_NAME:
            raise DefinitionError(f"{self.where}: its name must have 1 to {MAX_NAME} characters")
        if not self.options.get("queue"):
            raise DefinitionError(f'{self.where}: name its queue, as in queue="mail"')
        try:
            check_options(self.options, DECLARED, self.parameters)
        except (TypeError, ValueError) as error:
            raise DefinitionError(f"{self.where}: {error}") from None

    def check_types(self) -> None:
        """Read all annotations. Raises DefinitionError if one has no JSON or cannot be resolved."""
        self.read_types()
        _ = self.result

    def _turned(self, turn: Callable[[Faults], Any], what: str) -> Any:
        faults: Faults = []
        try:
            turned = turn(faults)
        except RecursionError:
            fault(faults, "", "is nested too deeply")
        if faults:
            raise PayloadInvalid(faults, what)
        return turned


def check_if_known(check: Callable[[], object]) -> None:
    """Raises DefinitionError if an annotation has no JSON. One that cannot be resolved yet is left for later."""
    try:
        check()
    except DefinitionError as error:
        if not isinstance(error.__cause__, NameError):
            raise
