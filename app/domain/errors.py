"""Refusals: a code for programs, a detail for people. Only the edge maps a code to an HTTP status."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

CODES: frozenset[str] = frozenset(
    {
        "malformed",
        "unauthenticated",
        "forbidden",
        "host_refused",
        "not_found",
        "handler_not_found",
        "queue_not_found",
        "task_not_found",
        "batch_not_found",
        "action_not_found",
        "schedule_not_found",
        "tenant_not_found",
        "limit_not_found",
        "key_not_found",
        "source_not_found",
        "method_not_allowed",
        "request_timeout",
        "lease_lost",
        "task_cancelled",
        "task_ended",
        "task_not_editable",
        "queue_is_push",
        "queue_in_use",
        "handler_in_use",
        "limit_in_use",
        "batch_sealed",
        "etag_mismatch",
        "too_large",
        "unsupported_media_type",
        "invalid",
        "idempotency_mismatch",
        "egress_denied",
        "bridge_unavailable",
        "encryption_unavailable",
        "payload_schema_mismatch",
        "queue_full",
        "key_full",
        "rate_limited",
        "headers_too_large",
        "internal",
        "not_implemented",
        "unavailable",
    }
)


@dataclass(frozen=True, slots=True)
class FieldError:
    """One violation: an RFC 6901 pointer into the request (empty for the whole) and what is wrong there."""

    pointer: str
    detail: str


class Refusal(Exception):
    """Raised for a request that Sluice refuses, or cannot serve now."""

    def __init__(
        self,
        code: str,
        detail: str,
        errors: Sequence[FieldError] = (),
        *,
        retry_after_seconds: float | None = None,
    ) -> None:
        if code not in CODES:
            raise ValueError(f"unknown error code {code!r}")
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.errors: tuple[FieldError, ...] = tuple(errors)
        self.retry_after_seconds = retry_after_seconds
        self.recorded = False
        """The audit has a row of it."""

    def bare(self) -> Self:
        """Drop traceback and context, for a refusal that is kept: thousands of them would be as many garbage cycles."""
        self.__traceback__ = self.__context__ = self.__cause__ = None
        return self


def pointer(*parts: str | int) -> str:
    """Return the RFC 6901 pointer of a path of keys and indexes."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def invalid(errors: Iterable[FieldError]) -> Refusal:
    """Return the refusal of a well-formed but invalid request; its detail is the first violation."""
    found = tuple(errors)
    first = found[0]
    detail = f"{first.pointer or 'the body'}: {first.detail}"
    if len(found) > 1:
        detail += f" (and {len(found) - 1} more)"
    return Refusal("invalid", detail, found)


def invalid_field(where: str, detail: str) -> Refusal:
    return invalid((FieldError(where, detail),))


# Refusals that are the same everywhere


def queue_not_found(name: str) -> Refusal:
    return Refusal("queue_not_found", f"there is no queue {name}; PUT /queues/{name} creates it")


def batch_sealed() -> Refusal:
    return Refusal("batch_sealed", "the batch is sealed or cancelled and takes no more tasks; create a new one")


def task_ended(state: str) -> Refusal:
    return Refusal("task_ended", f"the task has already ended; its state is {state}")


def too_many(kind: str, most: int, where: str = "") -> Refusal:
    """Return the refusal of one more `kind` (in the plural). Existing ones can be replaced, even beyond a lowered cap."""
    return invalid_field(
        where,
        f"the tenant already has {most:,} {kind}, the most allowed; delete some, or have the operator raise SLUICE_MAX_DEFINITIONS",
    )
