"""Definitions as code, on the wire."""

from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct

from app.domain.bodies import ContentHidden
from app.domain.definitions import MAX_VERSION, Action, Kind
from app.domain.handlers import HandlerBody
from app.domain.limits import LimitDefinition, Limits
from app.domain.names import Name
from app.domain.queues import QueueBody
from app.domain.schedules.definitions import ScheduleBody
from app.domain.sources import SourceDefinition
from app.edge.declared import ref_of

Handler = TypeVar("Handler")
Queue = TypeVar("Queue")
Schedule = TypeVar("Schedule")
Source = TypeVar("Source")
OfLimits = TypeVar("OfLimits")
NamedLimit = TypeVar("NamedLimit")


class Sections(
    Struct, Generic[NamedLimit, Handler, Queue, Schedule, Source, OfLimits], kw_only=True, forbid_unknown_fields=True
):
    """The definitions that should exist. Sections that are absent or null are left as they are."""

    named_limits: dict[Name, NamedLimit] | None = None
    handlers: dict[Name, Handler] | None = None
    queues: dict[Name, Queue] | None = None
    schedules: dict[Name, Schedule] | None = None
    sources: dict[Name, Source] | None = None
    limits: OfLimits | None = None
    owner: Annotated[
        Name | None,
        Meta(
            description="Who manages these definitions. Without it, existing definitions keep their owner and new ones have none."
        ),
    ] = None
    prune: Annotated[
        bool,
        Meta(
            description="Delete definitions with this owner that are not in the document, in the sections that are present."
        ),
    ] = False


Version = Annotated[
    Annotated[str, Meta(max_length=MAX_VERSION)] | None,
    Meta(description="Version of a plan; the apply is refused if the plan has changed since."),
]


class DefinitionsBody(
    Sections[LimitDefinition, HandlerBody, QueueBody, ScheduleBody, SourceDefinition, Limits], kw_only=True
):
    """The definitions that should exist. Sections that are absent or null are left as they are."""


class ApplyBody(DefinitionsBody, kw_only=True):
    """The definitions that should exist. Sections that are absent or null are left as they are."""

    version: Version = None


class PlanOutline(Sections[Any, Any, Any, Any, Any, dict[str, Any]], kw_only=True):
    """A document whose definitions are read one by one: there may be 5,000, and each has its own faults."""


class ApplyOutline(PlanOutline, kw_only=True):
    version: Version = None


class FieldChangeOut(Struct, rename={"from_": "from"}):
    field: Annotated[str, Meta(description="Nested names are joined by dots.")]
    from_: Annotated[Any, Meta(description="Headers and secrets are shown as `***`; null for a new definition.")]
    to: Any
    content_hidden: ContentHidden = UNSET


class ChangeOut(Struct):
    kind: Kind
    name: Annotated[Name | None, Meta(description="null for the limits.")]
    action: Action
    changes: list[FieldChangeOut]


class PlanOut(Struct):
    version: Annotated[str, Meta(description="A strong ETag over the document and what it was compared with.")]
    changes: Annotated[
        list[Annotated[msgspec.Raw, Meta(extra_json_schema=ref_of(ChangeOut))]],
        Meta(description="In the order in which they are applied."),
    ]


class AppliedOut(PlanOut):
    secrets: Annotated[
        dict[Name, str], Meta(description="Signing secrets generated for new handlers; they are shown only once.")
    ]
