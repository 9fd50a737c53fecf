"""What is wrong with a payload, a result or a definition, and where."""

from collections.abc import Sequence
from typing import Any, TypedDict

from sluice_client.errors import SluiceError


class Fault(TypedDict):
    pointer: str
    """RFC 6901, into the payload or the result; empty for all of it."""
    detail: str


Faults = list[Fault]


class DefinitionError(SluiceError, TypeError):
    """A task, job or schedule cannot be what its declaration says. Raised where it is declared."""


class PayloadInvalid(SluiceError, ValueError):
    """A payload or a result does not fit its annotations. It would not fit the next time either: no retry helps."""

    def __init__(self, errors: Sequence[Fault], what: str = "the payload") -> None:
        super().__init__(errors, what)
        self.errors = list(errors)
        self.what = what

    def __str__(self) -> str:
        return f"{self.what} is invalid: " + "; ".join(
            f"{error['pointer'] or '/'} {error['detail']}" for error in self.errors
        )


def fault(faults: Faults, at: str, detail: str) -> None:
    faults.append({"pointer": at, "detail": detail})


def within(at: str, name: str | int) -> str:
    """Return the pointer to a member or an item of what is at `at`."""
    return f"{at}/{name if isinstance(name, int) else name.replace('~', '~0').replace('/', '~1')}"


def shown(value: Any) -> str:
    """Return what a value is, for a message. Values themselves may be secret or long and are left out."""
    return "null" if value is None else f"a value of type {type(value).__name__}"
