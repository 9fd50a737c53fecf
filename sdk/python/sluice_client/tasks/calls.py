"""A task with its arguments and options, ready to be enqueued."""

from collections.abc import Mapping
from copy import copy
from typing import Any, Generic, TypeVar

from sluice_client.models import OnCompleteBody
from sluice_client.tasks.definitions import Arguments, Definition
from sluice_client.tasks.options import CALLED, TEMPLATES, check_options, fields_of, merged

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

    @property
    def own_fields(self) -> frozenset[str]:
        """The fields of the enqueue that the call has beside its task's."""
        return frozenset(fields_of(self.options)) | {TEMPLATES[name] for name in TEMPLATES if self.options.get(name)}

    def on_complete(self) -> OnCompleteBody:
        """Return the call as the service takes it for `on_complete`: queue, type and payload are all that it has then."""
        return {"queue": self.queue, "type": self.definition.name, "payload": self._body["payload"]}

    def with_key(self, key: str) -> "Call[R_co]":
        """Return the same call with an idempotency key."""
        other = copy(self)
        other.options = {**self.options, "idempotency_key": key}
        other._body = {**self._body, "idempotency_key": key}
        return other

    def with_options(self, **options: Any) -> "Call[R_co]":
        """Return the same call with further options. Raises ValueError."""
        return Call(self.definition, self.arguments, merged(self.options, options))
