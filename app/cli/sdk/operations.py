"""Operations of the OpenAPI document as methods: one file of `api/` for each group."""

import keyword
import re
from dataclasses import dataclass
from typing import Any

from app.cli.sdk.names import GROUPS, NAMES, PATHS, REPEATABLE, SERVICE
from app.cli.sdk.schemas import Schema, Types, model_name, operations, sentence, wrapped

COMMON = {
    "forbidden",
    "headers_too_large",
    "host_refused",
    "internal",
    "invalid",
    "malformed",
    "not_implemented",
    "rate_limited",
    "request_timeout",
    "too_large",
    "unauthenticated",
    "unavailable",
    "unsupported_media_type",
}
"""Codes that nearly every operation has: `errors.py` speaks of them once."""


@dataclass(frozen=True)
class Parameter:
    """An argument of a method, and what it is on the wire."""

    name: str
    """In Python."""
    wire: str
    place: str
    """`path`, `query`, `header` or `body`."""
    annotation: str
    required: bool
    description: str

    @property
    def signature(self) -> str:
        return f"{self.name}: {self.annotation}" + ("" if self.required else " = UNSET")


@dataclass(frozen=True)
class Operation:
    id: str
    method: str
    path: str
    document: dict[str, Any]
    types: Types

    @property
    def group(self) -> str:
        return NAMES[self.id].partition(".")[0]

    @property
    def name(self) -> str:
        return NAMES[self.id].partition(".")[2]

    @property
    def body(self) -> Schema | None:
        """The schema of its body: an object, whose fields are arguments."""
        if "requestBody" not in self.document:
            return None
        schema = self.document["requestBody"]["content"]["application/json"]["schema"]
        named = next(option for option in schema.get("anyOf", [schema]) if "$ref" in option)
        return self.types.schemas[named["$ref"].rpartition("/")[2]]

    @property
    def answer(self) -> str:
        """The annotation of what it returns."""
        found = []
        for status, response in self.document["responses"].items():
            content = response.get("content", {})
            if status < "300" and "application/json" in content:
                found.append(self.types.text(content["application/json"]["schema"], sent=False))
            elif status < "300":
                found.append("str" if content else "None")
        return " | ".join(dict.fromkeys(found))

    @property
    def item(self) -> str | None:
        """The annotation of an item, if it answers with pages."""
        if not any(of["name"] == "cursor" for of in self.document.get("parameters", ())):
            return None
        schema = self.types.schemas[self._answer_schema]
        return self.types.text(schema["properties"]["items"]["items"], sent=False)

    @property
    def _answer_schema(self) -> str:
        content = self.document["responses"]["200"]["content"]
        return str(content["application/json"]["schema"]["$ref"]).rpartition("/")[2]

    def parameters(self) -> list[Parameter]:
        """Those of the path first; then those of the body, the query and the headers, the required ones before the others."""
        found = [self._parameter(of) for of in self.document.get("parameters", [])]
        body = self.body or {}
        required = body.get("required", [])
        fields = [
            Parameter(python_name(name), name, "body", self.types.text(of, sent=True), name in required, described(of))
            for name, of in body.get("properties", {}).items()
        ]
        in_body = {field.name for field in fields}
        named = [parameter for parameter in found if parameter.place == "path"]
        others = [parameter for parameter in found if parameter.place != "path" and parameter.name not in in_body]
        return named + sorted(fields + others, key=lambda parameter: not parameter.required)

    def _parameter(self, of: dict[str, Any]) -> Parameter:
        name, place = of["name"], of["in"]
        if place == "path":
            text = described(of).replace(", percent-encoded", "")  # the client does that
            return Parameter(self._path_name(name), name, place, "str", True, text)
        if name == "sluice-lease-token":
            return Parameter("lease_token", name, place, "str", True, described(of))
        annotation = self.types.text(of["schema"], sent=True)
        if of["schema"].get("format") == "date-time":
            annotation = annotation.replace("str", "Instant")
        if annotation.endswith(" | None"):  # absent, it is the same as None
            annotation = annotation.removesuffix(" | None")
        return Parameter(python_name(name), name, place, f"{annotation} | None", False, described(of))

    def _path_name(self, name: str) -> str:
        collection = self.path.split("/")[1]
        return PATHS[self.group] if name == "name" and collection != self.group and self.group in PATHS else name


def python_name(name: str) -> str:
    name = name.lower().replace("-", "_")
    return f"{name}_" if keyword.iskeyword(name) else name


def described(of: Schema) -> str:
    """A description, with the value that a field has if it is left out."""
    text = sentence(of.get("description", of.get("schema", {}).get("description", "")))
    default = of.get("default", of.get("schema", {}).get("default"))
    if default in (None, {}, []) or of.get("name") == "limit":
        return text
    shown = f"Default: `{default}`."
    return f"{text} {shown}" if text else shown


def all_operations(document: dict[str, Any]) -> list[Operation]:
    """Raises KeyError, naming the operation, for one that has no name in `names.py`."""
    types = Types(document)
    found = [Operation(of["operationId"], method, path, of, types) for path, method, of in operations(document)]
    unnamed = [operation.id for operation in found if operation.id not in NAMES]
    if unnamed:
        raise KeyError(f"app/cli/sdk/names.py has no name for {', '.join(unnamed)}")
    return found


def group_source(group: str, members: list[Operation]) -> str:
    """Return the source of one file of `api/`."""
    title = "Service" if group == SERVICE else group.capitalize()
    methods = "\n".join(_method(operation) for operation in members)
    names = set(re.findall(r"\w+", methods))
    models = sorted(names & {*_model_names(members), "Instant"})
    typing = sorted(names & {"Any", "Literal"})
    abstract = sorted(names & {"AsyncIterator", "Mapping", "Sequence"})
    parameters = sorted(names & {"UNSET", "given", "segment"})
    lines = [f'"""{GROUPS[group]}\n\nGenerated from openapi/openapi.json by `make openapi`.\n"""\n']
    if abstract:
        lines.append(f"from collections.abc import {', '.join(abstract)}")
    if typing:
        lines.append(f"from typing import {', '.join(typing)}")
    if "follow" in names:
        lines.append("from sluice_client.api.events import follow")
    lines.append("from sluice_client.api.group import Group")
    if "Pages" in names:
        lines.append("from sluice_client.api.pages import Pages")
    if parameters:
        lines.append(f"from sluice_client.api.parameters import {', '.join(parameters)}")
    if "Event" in names:
        lines.append("from sluice_client.api.replies import Event")
    if models:
        lines.append(f"from sluice_client.models import {', '.join(models)}")
    if "is_keyed" in names:
        lines.append("from sluice_client.retrying import is_keyed")
    return "\n".join(lines) + f"\n\nclass {title}(Group):\n{methods}"


def _model_names(members: list[Operation]) -> set[str]:
    return {model_name(name) for name in members[0].types.schemas}


def _method(operation: Operation) -> str:
    parameters = operation.parameters()
    positional = [parameter.signature for parameter in parameters if parameter.place == "path"]
    named = [_signature(parameter) for parameter in parameters if parameter.place != "path"]
    arguments = ", ".join(["self", *positional, *(["*", *named] if named else [])])
    if operation.id == "get_events":
        head, answer, call = "def", "AsyncIterator[Event]", "follow(self._transport, task, last_event_id)"
    elif operation.item is not None:
        head, answer = "def", f"Pages[{operation.item}, {operation.answer}]"
        call = f"Pages(self._transport, {_path(operation)}, {_fields(parameters, 'query')})"
    elif operation.id == "get_metrics":
        head, answer, call = "async def", "str", f"await self._text({_path(operation)})"
    else:
        head, answer, call = "async def", operation.answer, _call(operation, parameters)
    body = _fields(parameters, "body") if operation.body is not None else None
    lines = [f"    {head} {operation.name}({arguments}) -> {answer}:", _docstring(operation, parameters)]
    if body is not None:
        lines.append(f"        {_body_name(parameters)} = {body}")
    if answer == "None":
        lines.append(f"        {call}")
    elif " | " in answer or (answer[0].isupper() and not answer.startswith(("Pages", "Async"))):
        lines.append(f"        view: {answer} = {call}\n        return view")
    else:
        lines.append(f"        return {call}")
    return "\n".join(lines) + "\n"


def _signature(parameter: Parameter) -> str:
    if parameter.wire == "limit" and parameter.place == "query":
        return "limit: int = 200"
    return parameter.signature


def _body_name(parameters: list[Parameter]) -> str:
    """Return what a method calls the body that it sends; a field of it may be called body too."""
    return "document" if any(parameter.name == "body" for parameter in parameters) else "body"


def _call(operation: Operation, parameters: list[Parameter]) -> str:
    arguments = [f'"{operation.method}"', _path(operation)]
    if query := _fields(parameters, "query"):
        arguments.append(f"params={query}")
    if operation.body is not None:
        is_optional = not operation.document["requestBody"].get("required")
        body = _body_name(parameters)
        arguments.append(f"body={body} or None" if is_optional else f"body={body}")
    if headers := _fields(parameters, "header"):
        arguments.append(f"headers={headers}")
    if operation.id in REPEATABLE:
        arguments.append(f"repeatable={REPEATABLE[operation.id]}")
    if any(parameter.wire == "wait_seconds" for parameter in parameters):
        arguments.append("wait_seconds=wait_seconds")
    return f"await self._ask({', '.join(arguments)})"


def _path(operation: Operation) -> str:
    names = {parameter.wire: parameter.name for parameter in operation.parameters() if parameter.place == "path"}
    if not names:
        return f'"{operation.path}"'
    return 'f"' + re.sub(r"\{(\w+)\}", lambda found: f"{{segment({names[found[1]]})}}", operation.path) + '"'


def _fields(parameters: list[Parameter], place: str) -> str:
    pairs = [f'"{parameter.wire}": {parameter.name}' for parameter in parameters if parameter.place == place]
    if place == "body":
        return f"given({{{', '.join(pairs)}}})"
    return f"{{{', '.join(pairs)}}}" if pairs else ""


def _docstring(operation: Operation, parameters: list[Parameter]) -> str:
    text = operation.document.get("description") or operation.document["summary"]
    parts = [sentence(part) for part in text.split("\n\n")]
    told = [f"- `{parameter.name}`: {parameter.description}" for parameter in parameters if parameter.description]
    if told:
        parts.append("\n".join(wrapped(line, 8, "  ") for line in told))
    codes = _codes(operation)
    if codes:
        parts.append(f"Refused with {codes}.")
    lines = "\n\n".join(part if part.startswith("- ") else wrapped(part, 8) for part in parts).splitlines()
    if len(lines) == 1:
        return f'        """{lines[0]}"""'
    return "\n".join([f'        """{lines[0]}', *(f"        {line}".rstrip() for line in lines[1:]), '        """'])


def _codes(operation: Operation) -> str:
    found = [
        f"`{code}` ({status})"
        for status, response in operation.document["responses"].items()
        if status >= "400"
        for code in re.findall(r"`([a-z_]+)`: ", response["description"])
        if code not in COMMON
    ]
    return ", ".join(found)
