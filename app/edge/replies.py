"""What all bodies share: strict parsing, and one format for instants."""

from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta, Struct
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema
from starlette.responses import Response

from app.domain.instants import format_instant
from app.domain.names import NAME_PATTERN, NAME_RULE

Item = TypeVar("Item")

NO_STORE = {"cache-control": "no-store"}
"""For every answer that contains a secret: no cache may keep it."""

Instant = Annotated[
    datetime,
    PlainSerializer(format_instant, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-21T22:44:00.123456Z"]}),
]
Name = Annotated[str, Field(pattern=NAME_PATTERN, description=NAME_RULE)]
Owner = Annotated[
    str | None,
    Field(
        exclude_if=lambda owner: owner is None,
        description="Owner named by the definitions document that manages it, if any.",
    ),
]


class RequestBody(BaseModel):
    """A body that refuses unknown fields and does not coerce types: neither "5" to 5 nor true to 1."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class ResponseBody(BaseModel):
    def reply(self, status: int = 200, headers: dict[str, str] | None = None) -> Response:
        return json_reply(self.model_dump_json().encode(), status, headers)


class Page(ResponseBody, Generic[Item]):
    items: list[Item]
    next_cursor: str | None = Field(description="The `cursor` of the next page; null on the last page.")


LINE_END = b"\n"
"""Ends every JSON answer, problems included, so that a terminal's prompt is on a new line. Parsers ignore it."""


def json_reply(
    body: bytes, status: int = 200, headers: dict[str, str] | None = None, media_type: str = "application/json"
) -> Response:
    return Response(body + LINE_END, status, headers, media_type)


def reply(shown: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Encode a struct, or values made of structs, as JSON."""
    return json_reply(msgspec.json.encode(shown), status, headers)


class FieldProblem(Struct):
    pointer: Annotated[
        str, Meta(description="RFC 6901 pointer into the body, or a parameter's name; empty for the whole request.")
    ]
    detail: str


class Problem(Struct):
    """Problem details (RFC 9457)."""

    type: str
    title: str
    status: int
    code: Annotated[str, Meta(description="Stable error code, for programs.")]
    detail: Annotated[str, Meta(description="Explanation, for people.")]
    errors: list[FieldProblem]
