"""Handlers: where tasks are delivered."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from app.domain.bodies import faults, with_more
from app.domain.breakers import Adaptive, Breaker, Guard, Park
from app.domain.conditions import etag_of
from app.domain.errors import FieldError
from app.domain.headers import check_headers
from app.domain.limits import LimitUse, MaxConcurrency, NamedUses, Rate, check_uses, uses_of
from app.domain.texts import MAX_DESCRIPTION, Description, check_text
from app.domain.urls import MAX_URL, url_problem

MIN_TIMEOUT_SECONDS = 0.1
MAX_TIMEOUT_SECONDS = 43_200.0
MAX_FATAL_STATUSES = 100
MIN_GROUP_TASKS, MAX_GROUP_TASKS = 2, 1_000
MAX_GROUP_WAIT_SECONDS = 300.0

_SECRET = re.compile(r"whsec_[A-Za-z0-9+/]{32,88}={0,2}")
HIDDEN = "***"
"""Shown in place of a value that can be written but not read."""
SECRETS_LOST = "the handler's headers and signing secret cannot be read: PUT the handler again, with its headers"
"""Why nothing is sent to a handler whose encrypted parts cannot be decrypted."""
SECRET_RULE = "whsec_ and the base64 of 24 to 64 bytes"  # noqa: S105  # a rule, not a secret


TimeoutSeconds = Annotated[float, Meta(ge=MIN_TIMEOUT_SECONDS, le=MAX_TIMEOUT_SECONDS)]
FatalStatus = Annotated[int, Meta(ge=100, le=599)]
Targets = Literal["own", "path", "any"]
"""What a handler lets its tasks name: nothing, a path below its URL, or any URL."""


class Grouping(Struct, frozen=True, forbid_unknown_fields=True):
    """Several tasks of one queue in one request."""

    max_tasks: Annotated[
        int, Meta(ge=MIN_GROUP_TASKS, le=MAX_GROUP_TASKS, description="The most tasks that one request carries.")
    ]
    wait_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=MAX_GROUP_WAIT_SECONDS,
            description="How long a ready task may wait for others, while there are fewer than `max_tasks`.",
        ),
    ] = 0.0


class HandlerDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    url: Annotated[str, Meta(max_length=MAX_URL, description="http or https, without user name, password or fragment.")]
    timeout_seconds: TimeoutSeconds = 30.0
    headers: Annotated[dict[str, str], Meta(description="Sent with every delivery. Write-only.")] = {}
    max_concurrency: MaxConcurrency | None = None
    fatal_statuses: Annotated[tuple[FatalStatus, ...], Meta(max_length=MAX_FATAL_STATUSES)] = ()
    description: Description | None = None
    group: Annotated[
        Grouping | None, Meta(description="Deliver ready tasks together; null: each in a request of its own.")
    ] = None
    targets: Annotated[
        Targets,
        Meta(
            description="What a task's `target` may name: nothing (`own`), a path below the URL (`path`), or any URL (`any`)."
        ),
    ] = "own"
    breaker: Annotated[Breaker | None, Meta(description="null: a failing service is called all the same.")] = None
    adaptive: Annotated[
        Adaptive | None, Meta(description="null: max_concurrency is the limit. Otherwise it is required, and the most.")
    ] = None
    park_on_retry_after: Annotated[
        Park,
        Meta(
            description="What waits when an answer has a `Retry-After`: the task, all of its key, or the whole handler."
        ),
    ] = "task"
    rate: Annotated[Rate | None, Meta(description="How many of its tasks start in a while.")] = None
    limits: tuple[LimitUse, ...] = ()
    """What all its tasks take."""

    @property
    def guard(self) -> Guard:
        return Guard(self.breaker, self.adaptive, self.max_concurrency)

    def check(self) -> list[FieldError]:
        """Return every violation. Whether the address may be called is up to the egress policy."""
        more = [FieldError("/url", problem)] if (problem := url_problem(self.url)) else []
        more += check_headers(self.headers)
        more += self._guard_errors()
        more += check_uses(self.limits, "/limits")
        if self.description is not None:
            more += check_text(self.description, "/description", MAX_DESCRIPTION, empty=True)
        return with_more(faults(self), more)

    def _guard_errors(self) -> list[FieldError]:
        errors = []
        if self.breaker is not None and self.breaker.open_max_seconds < self.breaker.open_seconds:
            errors.append(FieldError("/breaker/open_max_seconds", "must not be less than open_seconds"))
        if self.adaptive is not None:
            if self.max_concurrency is None:
                errors.append(FieldError("/max_concurrency", "is required with adaptive, as the most it may allow"))
            elif self.adaptive.min > self.max_concurrency:
                errors.append(FieldError("/adaptive/min", "must not be more than max_concurrency"))
        return errors


class HandlerBody(HandlerDefinition, frozen=True, forbid_unknown_fields=True):
    """A handler definition as sent, with its secret, which reads never show."""

    limits: NamedUses = []  # type: ignore[assignment]  # the names that stand for objects here
    secret: Annotated[
        Annotated[str, Meta(max_length=100)] | None,
        Meta(description=f"The signing secret, {SECRET_RULE}; generated if absent."),
    ] = None

    @property
    def definition(self) -> HandlerDefinition:
        given = {name: getattr(self, name) for name in HandlerDefinition.__struct_fields__}
        return HandlerDefinition(**given | {"limits": uses_of(self.limits)})


@dataclass(frozen=True, slots=True)
class HandlerView:
    """A handler: its definition and its present state."""

    name: str
    definition: HandlerDefinition
    created_at: datetime
    updated_at: datetime
    enabled: bool = True
    disabled_at: datetime | None = None
    disabled_reason: str | None = None
    parked_until: datetime | None = None
    """A service asked not to be called before then; it may have passed."""
    secrets_lost: bool = False
    """Its headers and signing secret cannot be decrypted: nothing is sent until the handler is PUT again."""
    owner: str | None = None
    """The owner that the definitions document managing it names."""


def is_secret(text: str) -> bool:
    return _SECRET.fullmatch(text) is not None and (len(text) - len("whsec_")) % 4 == 0


def handler_etag(definition: HandlerDefinition, key: bytes = b"") -> str:
    return etag_of(handler_to_dict(definition), key)


def handler_to_dict(definition: HandlerDefinition) -> dict[str, Any]:
    """Return the complete definition as JSON values."""
    document: dict[str, Any] = msgspec.to_builtins(definition)
    return document
