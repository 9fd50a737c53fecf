"""The client has every operation of the document, in both forms, with every field."""

import inspect
import json
import keyword
import types
import typing
from collections.abc import Callable
from functools import reduce
from typing import Any, get_type_hints

import httpx2
import pytest

from app.cli.sdk.names import NAMES, PATHS
from app.cli.sdk.operations import Operation, all_operations
from app.cli.sdk.schemas import model_name
from sluice_client import models
from sluice_client.api import UNSET, Api, SyncApi
from sluice_client.api.blocking.pages import Pages as SyncPages
from sluice_client.api.pages import Pages
from tests.sdk.forms import FORMS, call
from tests.sluices import ROOT

DOCUMENT = json.loads((ROOT / "openapi" / "openapi.json").read_text())
OPERATIONS = [
    (operation["operationId"], method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]
IDS = [name for name, *_ in OPERATIONS]
Form = type[Api] | type[SyncApi]
SCHEMAS = DOCUMENT["components"]["schemas"]


def python_name(wire: str) -> str:
    name = wire.lower().replace("-", "_").replace("sluice_lease_token", "lease_token")
    return f"{name}_" if keyword.iskeyword(name) else name


def method_of(api: Form, operation_id: str) -> Callable[..., Any]:
    instance = api("http://127.0.0.1:9")
    return reduce(getattr, NAMES[operation_id].removeprefix("service.").split("."), instance)  # type: ignore[return-value]


def body_of(operation: dict[str, Any]) -> dict[str, Any]:
    if "requestBody" not in operation:
        return {}
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    named = next(option for option in schema.get("anyOf", [schema]) if "$ref" in option)
    found: dict[str, Any] = SCHEMAS[named["$ref"].rpartition("/")[2]]
    return found


@pytest.mark.parametrize("form", FORMS)
def test_every_operation_has_a_method_with_all_that_it_takes(form: Form) -> None:
    for operation_id, _, path, operation in OPERATIONS:
        check_signature(form, operation_id, path, operation)


def check_signature(form: Form, operation_id: str, path: str, operation: dict[str, Any]) -> None:
    called = method_of(form, operation_id)
    signature = inspect.signature(called)
    body = body_of(operation)
    group = NAMES[operation_id].partition(".")[0]
    renamed = PATHS.get(group, "name") if path.split("/")[1] != group else "name"
    in_path = [
        renamed if of["name"] == "name" else of["name"] for of in operation.get("parameters", ()) if of["in"] == "path"
    ]
    others = {python_name(of["name"]) for of in operation.get("parameters", ()) if of["in"] != "path"}
    fields = {python_name(name) for name in body.get("properties", ())}
    positional = [of.name for of in signature.parameters.values() if of.kind is of.POSITIONAL_OR_KEYWORD]
    named = {of.name for of in signature.parameters.values() if of.kind is of.KEYWORD_ONLY}
    assert positional == in_path and named == others | fields, operation_id
    for name, of in signature.parameters.items():
        assert of.annotation is not inspect.Parameter.empty, (operation_id, name)
        required = name in in_path or name == "lease_token" or name in map(python_name, body.get("required", ()))
        assert (of.default is of.empty) == required, (operation_id, name)
        assert required or of.default is UNSET or (name, of.default) == ("limit", 200), operation_id
    assert (called.__doc__ or "").strip(), operation_id


@pytest.mark.parametrize("form", FORMS)
def test_every_method_returns_what_the_document_says(form: Form) -> None:
    for operation_id, _, _, operation in OPERATIONS:
        check_returned(form, operation_id, operation)


def check_returned(form: Form, operation_id: str, operation: dict[str, Any]) -> None:
    called = method_of(form, operation_id)
    returned = get_type_hints(called)["return"]
    wanted = set()
    for status, response in operation["responses"].items():
        schema = response.get("content", {}).get("application/json", {}).get("schema", {})
        if status < "300" and "$ref" in schema:
            wanted.add(getattr(models, model_name(schema["$ref"].rpartition("/")[2])))
    if typing.get_origin(returned) in (Pages, SyncPages):
        item, page = typing.get_args(returned)
        assert {page} == wanted and get_type_hints(page)["items"] == types.GenericAlias(list, item), operation_id
    elif operation_id in ("get_events", "get_metrics"):
        assert not wanted, operation_id
    else:
        assert (set(typing.get_args(returned)) or {returned}) == (wanted or {type(None)}), operation_id
    assert inspect.iscoroutinefunction(called) == (
        form is Api and operation_id != "get_events" and typing.get_origin(returned) is not Pages
    ), operation_id


def test_every_schema_has_a_type_with_all_its_fields() -> None:
    for name, schema in SCHEMAS.items():
        model = getattr(models, model_name(name))
        if "properties" not in schema:
            assert set(typing.get_args(model)) == set(schema["enum"]), name
        else:
            assert set(get_type_hints(model)) == set(schema["properties"]), name
            assert model.__required_keys__ == set(schema.get("required", ())), name


def sample(schema: dict[str, Any]) -> Any:
    """Something of a schema's type."""
    if "$ref" in schema:
        schema = SCHEMAS[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        return sample(schema["anyOf"][0])
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "any")
    simple = {"string": "a", "integer": 1, "number": 1.5, "boolean": True, "object": {}, "any": {"a": 1}}
    return [sample(schema.get("items", {}))] if kind == "array" else simple[kind]


@pytest.mark.anyio
@pytest.mark.parametrize("form", FORMS)
async def test_every_method_sends_its_operation_with_all_that_it_was_given(form: Form) -> None:
    asked: list[httpx2.Request] = []

    def respond(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(200, json={"items": [], "next_cursor": None})

    api = form("http://sluice.test/base", http=httpx2.MockTransport(respond))
    for operation_id, method, path, operation in OPERATIONS:
        if operation_id == "get_events":
            continue
        signature = inspect.signature(method_of(form, operation_id))
        body = body_of(operation)
        wire = {python_name(name): (name, sample(of)) for name, of in body.get("properties", {}).items()}
        arguments = {name: wire[name][1] if name in wire else "x" for name in signature.parameters}
        for name in {"limit", "wait_seconds"} & set(arguments) - set(wire):
            arguments[name] = 7
        asked.clear()
        found = await call(api, NAMES[operation_id].removeprefix("service."), **arguments)
        if isinstance(found, (Pages, SyncPages)):
            await call(found, "page")
        (request,) = asked
        parameters = operation.get("parameters", ())
        in_path = {of["name"] for of in parameters if of["in"] == "path"}
        filled = path.format(**dict.fromkeys(in_path, "x"))
        assert (request.method, request.url.path) == (method, f"/base{filled}"), operation_id
        assert set(request.url.params) == {of["name"] for of in parameters if of["in"] == "query"}, operation_id
        headers = {of["name"] for of in parameters if of["in"] == "header" and python_name(of["name"]) not in wire}
        assert all(request.headers[name] == "x" for name in headers), operation_id
        sent = json.loads(request.content) if request.content else {}
        assert sent == dict(wire.values()), operation_id


@pytest.mark.anyio
@pytest.mark.parametrize("form", FORMS)
async def test_what_is_left_out_is_not_sent_and_none_is(form: Form) -> None:
    bodies: list[Any] = []

    def respond(request: httpx2.Request) -> httpx2.Response:
        bodies.append(json.loads(request.content) if request.content else None)
        return httpx2.Response(200, json={})

    api = form("http://sluice.test", http=httpx2.MockTransport(respond))
    await call(api, "queues.put", "mail", handler=None, max_concurrency=10)
    await call(api, "queues.put", "mail", description=UNSET)
    await call(api, "leases.complete", "t", lease_token="x", result=None)
    await call(api, "leases.complete", "t", lease_token="x")
    assert bodies == [{"handler": None, "max_concurrency": 10}, {}, {"result": None}, None]


def test_an_operation_without_a_name_is_refused() -> None:
    document = {
        **DOCUMENT,
        "paths": {**DOCUMENT["paths"], "/new": {"get": {"operationId": "get_new", "responses": {}}}},
    }
    with pytest.raises(KeyError, match="get_new"):
        all_operations(document)
    assert all(isinstance(operation, Operation) for operation in all_operations(DOCUMENT))
    assert sorted(NAMES) == sorted(IDS) and len(set(NAMES.values())) == len(NAMES)
