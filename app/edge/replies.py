"""What all bodies share: strict reading, and instants written one way."""

from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema
from starlette.responses import Response

from app.domain.instants import format_instant
from app.domain.names import NAME_PATTERN, NAME_RULE

Item = TypeVar("Item")

NO_STORE = {"cache-control": "no-store"}
"""On every answer that holds a secret: whatever lies between must not keep it."""

Instant = Annotated[
    datetime,
    PlainSerializer(format_instant, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-21T22:44:00.123456Z"]}),
]
Name = Annotated[str, Field(pattern=NAME_PATTERN, description=NAME_RULE)]
Owner = Annotated[
    str | None,
    Field(
        exclude_if=lambda owner: owner is None, description="Of the file of definitions that manages it, if it has one."
    ),
]


class RequestBody(BaseModel):
    """Unknown fields are refused, and no type is made to fit: neither "5" for 5 nor true for 1."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class ResponseBody(BaseModel):
    def reply(self, status: int = 200, headers: dict[str, str] | None = None) -> Response:
        return json_reply(self.model_dump_json().encode(), status, headers)


class Page(ResponseBody, Generic[Item]):
    items: list[Item]
    next_cursor: str | None = Field(description="The `cursor` of the next page; null on the last.")


LINE_END = b"\n"
"""After every answer in JSON, problems too: on a terminal the prompt stands below it. Whitespace to whoever parses it."""


def json_reply(
    body: bytes, status: int = 200, headers: dict[str, str] | None = None, media_type: str = "application/json"
) -> Response:
    return Response(body + LINE_END, status, headers, media_type)


def reply(shown: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A struct, or what is made of structs, as JSON."""
    return json_reply(msgspec.json.encode(shown), status, headers)


class FieldProblem(BaseModel):
    pointer: str = Field(description="RFC 6901 pointer into the body, or the name of a parameter; empty for the whole.")
    detail: str


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str = Field(description="Stable, for programs.")
    detail: str = Field(description="For people.")
    errors: list[FieldProblem]


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(ref_template="#/components/schemas/{model}")
