"""A task with its arguments and options, ready to be enqueued."""

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from sluice_client.tasks.definitions import Arguments, Definition
from sluice_client.tasks.faults import DefinitionError
from sluice_client.tasks.options import CALLED, check_options, fields_of, merged

R_co = TypeVar("R_co", covariant=True)


class Call(Generic[R_co]):
    """What `send_welcome.call(7)` returns. It never changes: arguments are turned to JSON when it is made."""

    __slots__ = ("_body", "arguments", "definition", "options")

    def __init__(
        self, definition: Definition[R_co], arguments: Arguments, options: Mapping[str, Any] | None = None
    ) -> None:
        """`options` are those of this call alone. Raises PayloadInvalid, and ValueError for options."""
        self.definition = definition
        self.arguments = arguments
        self.options: Mapping[str, Any] = dict(options or {})
        own = merged(definition.options, self.options) if self.options else definition.options
        if self.options:
            check_options(self.options, CALLED, definition.parameters)
        self._body = {
            "payload": definition.payload(arguments),
            "type": definition.name,
            **(fields_of(own) if self.options else definition.enqueue_fields),
            **definition.keys(own, arguments),
        }

    def __repr__(self) -> str:
        return f"<Call of {self.definition.name} on queue {self.queue}>"

    @property
    def queue(self) -> str:
        return str(self.options.get("queue") or self.definition.queue)

    @property
    def idempotency_key(self) -> str | None:
        return self._body.get("idempotency_key")

    def body(self) -> dict[str, Any]:
        """Return the JSON of `POST /queues/{queue}/tasks`."""
        return dict(self._body)

    def with_options(self, **options: Any) -> "Call[R_co]":
        """Return the same call with further options. Raises ValueError."""
        return Call(self.definition, self.arguments, merged(self.options, options))


def checked_options(definition: Definition[Any], options: Mapping[str, Any]) -> None:
    """Raises DefinitionError for options that a call of this task cannot have."""
    try:
        check_options(options, CALLED, definition.parameters)
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"{definition.name}: {error}") from None
