"""Answers: JSON from structs, and problem details."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from starlette.responses import Response

NO_STORE = {"cache-control": "no-store"}
"""For every answer that contains a secret: no cache may keep it."""

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
