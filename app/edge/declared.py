"""Bodies in routes' signatures and in the OpenAPI document, each by the struct that declares it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from app.domain.bodies import read

_REF = "#/components/schemas/{name}"
Schema = dict[str, Any]
SHOWN = "Shown"
"""Suffix for the complete form in answers of a struct that is both sent and received."""
NO_NAMES: Mapping[str, str] = {}


class Reads:
    """A dependency on the body. `absent` is the value for a request without one; if not given, a body is required."""

    nullable = True
    """Whether `null` stands for an absent body."""

    def __init__(self, kind: Any, *absent: Any) -> None:
        self.kind = kind
        self.required = not absent
        self._absent = absent

    async def __call__(self, request: Request) -> Any:
        value = await request.json()  # already validated by StrictRoute
        return self._absent[0] if value is None and self._absent else read(value, self.kind)


class Takes(Reads):
    """A dependency on the body as bytes, which the route validates by the declaration itself, so that payloads stay unchanged."""

    nullable = False

    async def __call__(self, request: Request) -> bytes:
        return await request.body()


class Shown(dict[str, Any]):
    """Return the document's response with this struct as its body."""

    def __init__(self, kind: Any, **more: Any) -> None:
        super().__init__(content={"application/json": {"schema": ref_of(kind)}}, **more)
        self.kind = kind


def body_of(dependant: Dependant) -> Reads | None:
    """Return the body that a route takes."""
    return next((part.call for part in dependant.dependencies if isinstance(part.call, Reads)), None)


def request_body(kind: Any, *, required: bool = True, nullable: bool = False) -> Schema:
    """Return the operation's `requestBody`. `nullable`: of a body that may be absent, `null` says that it is."""
    schema: Schema = {"anyOf": [ref_of(kind), {"type": "null"}]} if nullable and not required else ref_of(kind)
    body: Schema = {"content": {"application/json": {"schema": schema}}}
    return body | {"required": True} if required else body


def ref_of(kind: Any) -> Schema:
    (ref,), _ = msgspec.json.schema_components([kind], ref_template=_REF)
    return ref


def schemas_of(taken: Iterable[Any], shown: Iterable[Any]) -> dict[str, Schema]:
    """Return the schemas of request bodies and of response bodies, with everything they refer to."""
    _, of_shown = msgspec.json.schema_components(list(shown), ref_template=_REF)
    _, of_taken = msgspec.json.schema_components(list(taken), ref_template=_REF)
    both = {name for name, schema in of_taken.items() if name in of_shown and "properties" in schema}
    names = {_REF.format(name=name): _REF.format(name=name + SHOWN) for name in both}
    found = {name + SHOWN * (name in both): _complete(schema, names) for name, schema in of_shown.items()}
    return found | {name: _portable(schema) for name, schema in of_taken.items()}


def kinds_of(routes: Iterable[Any]) -> Iterator[tuple[APIRoute, Reads | None, list[Any]]]:
    """Yield each route with its request body and its response structs."""
    for route in routes:
        if isinstance(route, APIRoute):
            answers = [answer.kind for answer in route.responses.values() if isinstance(answer, Shown)]
            yield route, body_of(route.dependant), answers


def _complete(schema: Schema, names: dict[str, str]) -> Schema:
    """Return the schema for an answer: every field is present except those that default to `UNSET`, and later versions may add
    more."""
    schema = _portable(schema, names)
    if "properties" not in schema:
        return schema
    schema.pop("additionalProperties", None)
    fields, given = schema["properties"].items(), schema.get("required", [])
    return schema | {
        "properties": {name: {key: part for key, part in field.items() if key != "default"} for name, field in fields},
        "required": [name for name, field in fields if "default" in field or name in given],
    }


def _portable(schema: Any, names: Mapping[str, str] = NO_NAMES) -> Any:
    """Return the schema in JSON Schema's terms, with references by these names: Python's `\\Z` becomes `$`."""
    if isinstance(schema, list):
        return [_portable(part, names) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _portable(part, names) for key, part in schema.items()}
    if isinstance(pattern := found.get("pattern"), str):
        found["pattern"] = pattern.replace(r"\Z", "$")
    if isinstance(ref := found.get("$ref"), str):
        found["$ref"] = names.get(ref, ref)
    if found.get("required") == []:
        del found["required"]
    return found
