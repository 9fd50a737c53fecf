"""Schemas of the OpenAPI document as Python types: `models.py`."""

import keyword
import textwrap
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

HEAD = '''"""The bodies and responses of the API. Generated from openapi/openapi.json by `make openapi`."""

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeAlias

if sys.version_info >= (3, 11):
    from typing import NotRequired, TypedDict
else:
    from typing_extensions import NotRequired, TypedDict

Instant: TypeAlias = datetime | str
"""A date-time with a zone, or an RFC 3339 text."""
'''


class Types:
    """The types of one document. What is sent is described by abstract types, so that a tuple is as good as a list."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.schemas: dict[str, Schema] = document["components"]["schemas"]
        asking = [(of.get("requestBody"), of.get("parameters")) for _, _, of in operations(document)]
        self.sent = self._reachable(asking)

    def models(self) -> str:
        """Return the source of `models.py`."""
        return HEAD + "".join(self._model(name, self.schemas[name]) for name in self._ordered())

    def text(self, schema: Schema, sent: bool) -> str:
        """Return the annotation of a schema."""
        if "$ref" in schema:
            return model_name(schema["$ref"].rpartition("/")[2])
        if "anyOf" in schema:
            options = [self.text(option, sent) for option in schema["anyOf"]]
            return " | ".join(dict.fromkeys(options))
        if "enum" in schema or "const" in schema:
            return f"Literal[{', '.join(repr(value) for value in schema.get('enum', [schema.get('const')]))}]"
        kind = schema.get("type")
        if kind == "array":
            return f"{'Sequence' if sent else 'list'}[{self.text(schema.get('items', {}), sent)}]"
        if kind == "object":
            values = schema.get("additionalProperties")
            return f"{'Mapping' if sent else 'dict'}[str, {self.text(values, sent) if values else 'Any'}]"
        if kind == "string" and schema.get("format") == "date-time" and sent:
            return "Instant"
        return {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None", None: "Any"}[
            kind
        ]

    def _model(self, name: str, schema: Schema) -> str:
        title, sent = model_name(name), name in self.sent
        if "properties" not in schema:
            return f"\n{title}: TypeAlias = {self.text(schema, sent)}\n"
        required = schema.get("required", [])
        fields = {
            field: self.text(of, sent) if field in required else f"NotRequired[{self.text(of, sent)}]"
            for field, of in schema["properties"].items()
        }
        doc = docstring(schema["description"]) + "\n" if "description" in schema else ""
        if any(keyword.iskeyword(field) for field in fields):  # no class can have a field of that name
            pairs = ", ".join(f'"{field}": {of}' for field, of in fields.items())
            return f'\n{title} = TypedDict("{title}", {{{pairs}}})\n'
        lines = []
        for field, of in schema["properties"].items():
            lines.append(f"    {field}: {fields[field]}\n")
            if "description" in of:
                lines.append(docstring(of["description"]))
        return f"\n\nclass {title}(TypedDict):\n{doc}{''.join(lines) or '    pass'}\n"

    def _ordered(self) -> list[str]:
        """By name, but each after those that it names."""
        ordered: dict[str, None] = {}

        def add(name: str) -> None:
            for other in sorted(self._named(self.schemas[name])):
                if other not in ordered:
                    add(other)
            ordered[name] = None

        for name in sorted(self.schemas):
            if name not in ordered:
                add(name)
        return list(ordered)

    def _reachable(self, part: Any) -> set[str]:
        found: set[str] = set()
        waiting = self._named(part)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting |= self._named(self.schemas[name])
        return found

    def _named(self, part: Any) -> set[str]:
        """The schemas that a part of the document refers to itself."""
        if isinstance(part, (list, tuple)):
            return set().union(*(self._named(item) for item in part))
        if not isinstance(part, dict):
            return set()
        names = set().union(*(self._named(item) for item in part.values()))
        return names | {part["$ref"].rpartition("/")[2]} if "$ref" in part else names


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield path, method and operation."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def model_name(name: str) -> str:
    """`Page_TaskView_` is TaskViewPage; every other schema has its own name."""
    return name.removeprefix("Page_").removesuffix("_") + "Page" if name.startswith("Page_") else name


def docstring(description: str) -> str:
    lines = wrapped(sentence(description), 4).splitlines()
    return "".join(f"    {line}\n" for line in ['"""' + lines[0], *lines[1:]]).removesuffix("\n") + '"""\n'


def wrapped(text: str, margin: int, indent: str = "") -> str:
    """Break a line so that it fits behind a margin; its later lines are indented."""
    return textwrap.fill(text, 114 - margin, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def sentence(text: str) -> str:
    """Return a description as the line of a docstring."""
    return " ".join(text.split()).replace("\\", "\\\\").replace('"""', "'''").removesuffix('"') + (
        '\\"' if text.endswith('"') else ""
    )
