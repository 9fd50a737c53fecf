"""Definitions as code, on the wire."""

from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from app.api.models.schedules import ScheduleIn
from app.domain.definitions import MAX_VERSION, Action, Kind
from app.edge.replies import Name, RequestBody, ResponseBody


class DefinitionsIn(RequestBody):
    """The definitions that should exist. Sections that are absent or null are left as they are."""

    handlers: dict[Name, Annotated[Any, WithJsonSchema({"$ref": "#/components/schemas/HandlerBody"})]] | None = None
    queues: dict[Name, Annotated[Any, WithJsonSchema({"$ref": "#/components/schemas/QueueBody"})]] | None = None
    schedules: dict[Name, ScheduleIn] | None = None
    limits: Annotated[Any, WithJsonSchema({"$ref": "#/components/schemas/Limits"})] | None = None
    owner: Name | None = Field(
        None,
        description="Who manages these definitions. Without it, existing definitions keep their owner and new ones have none.",
    )
    prune: bool = Field(
        False,
        description="Delete definitions with this owner that are not in the document, in the sections that are present.",
    )


class ApplyIn(DefinitionsIn):
    version: str | None = Field(
        None,
        max_length=MAX_VERSION,
        description="Version of a plan; the apply is refused if the plan has changed since.",
    )


class FieldChangeOut(ResponseBody):
    field: str = Field(description="Nested names are joined by dots.")
    from_: Any = Field(alias="from", description="Headers and secrets are shown as `***`; null for a new definition.")
    to: Any


class ChangeOut(ResponseBody):
    kind: Kind
    name: Name | None = Field(description="null for the limits.")
    action: Action
    changes: list[FieldChangeOut]


class PlanOut(ResponseBody):
    version: str = Field(description="A strong ETag over the document and what it was compared with.")
    changes: list[ChangeOut] = Field(description="In the order in which they are applied.")


class AppliedOut(PlanOut):
    secrets: dict[Name, str] = Field(
        description="Signing secrets generated for new handlers; they are shown only once."
    )
