"""Definitions as code, on the wire."""

from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from app.api.models.schedules import ScheduleIn
from app.api.models.tasks import AnyJson
from app.domain.definitions import MAX_VERSION, Action, Kind
from app.edge.replies import Name, RequestBody, ResponseBody


class DefinitionsIn(RequestBody):
    """What shall be there. A section that is absent or null is left as it is."""

    handlers: dict[Name, Annotated[Any, WithJsonSchema({"$ref": "#/components/schemas/HandlerBody"})]] | None = None
    queues: dict[Name, Annotated[Any, WithJsonSchema({"$ref": "#/components/schemas/QueueBody"})]] | None = None
    schedules: dict[Name, ScheduleIn] | None = None
    limits: Annotated[Any, WithJsonSchema({"$ref": "#/components/schemas/Limits"})] | None = None
    owner: Name | None = Field(
        None,
        description="Who manages what is here. Without one, what is there keeps its owner, and what is new has none.",
    )
    prune: bool = Field(
        False, description="Delete what is there under this owner and not here, in the sections that are here."
    )


class ApplyIn(DefinitionsIn):
    version: str | None = Field(
        None, max_length=MAX_VERSION, description="Of a plan: refused if it would now say another thing."
    )


class FieldChangeOut(ResponseBody):
    field: str = Field(description="Nested fields are joined by dots.")
    from_: AnyJson = Field(alias="from", description="Headers and secrets are shown as `***`; of a new one: null.")
    to: AnyJson


class ChangeOut(ResponseBody):
    kind: Kind
    name: Name | None = Field(description="null: the limits.")
    action: Action
    changes: list[FieldChangeOut]


class PlanOut(ResponseBody):
    version: str = Field(description="A strong ETag over the document and what it was compared with.")
    changes: list[ChangeOut] = Field(description="In the order in which they are carried out.")


class AppliedOut(PlanOut):
    secrets: dict[Name, str] = Field(description="Signing secrets made for new handlers. They are shown this once.")
