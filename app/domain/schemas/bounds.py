"""Estimate how much work a JSON Schema may cause, without running it.

The schema is read as a graph, with an edge from each subschema to every one that it applies, either in place (to the same value,
such as `allOf` or `$ref`) or to what is inside the value (such as `properties`). An in-place cycle never ends, and in-place
paths multiply where references double. A graph without cycles bounds how often any value of a payload is visited.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any
from urllib.parse import unquote

from app.domain.errors import pointer

MAX_APPLICATIONS = 100_000
"""How many subschemas may apply to one value of a payload."""
CHEAP_APPLICATIONS = 5_000
CHEAP_HEIGHT = 100
CHEAP_STATES = 10_000
PLAIN_APPLICATIONS = 200
PLAIN_STATES = 200
"""Limit for compiling on the event loop: a state or a subschema takes up to 2.5 microseconds."""
STATES_A_UNIT = 8
"""One pattern state costs per byte up to an eighth of what a subschema costs per value (about 50 ns)."""
ANY_STATES = 12
"""States of a class of most characters, in UTF-8."""
PROPERTY_STATES = 600
"""States of a Unicode property class: `\\pL` has about 500."""
FOLDED_STATES = 2_000
"""States of a case-insensitive class beyond ASCII."""
SATURATED = 10**12

_IN_PLACE = {"not": "one", "if": "one", "then": "one", "else": "one", "allOf": "list", "anyOf": "list", "oneOf": "list",
             "dependentSchemas": "map"}  # fmt: skip
_INSIDE = {"properties": "map", "patternProperties": "map", "additionalProperties": "one", "items": "one",
           "prefixItems": "list", "contains": "one", "propertyNames": "one", "unevaluatedProperties": "one",
           "unevaluatedItems": "one"}  # fmt: skip
_HELD = {"$defs": "map", "definitions": "map"}
_REFERENCES = ("$ref", "$dynamicRef")
_UNEVALUATED = ("unevaluatedProperties", "unevaluatedItems")
_TOKEN = re.compile(
    r"(?P<property>\\[pP](?:\{[^}]*\}|.))|(?P<escape>\\.)|(?P<flags>\(\?[a-zA-Z-]+[:)])|(?P<open>\()|(?P<close>\))"
    r"|(?P<class>\[)|\{\s*(?P<least>\d+)\s*(?:,\s*(?P<most>\d*)\s*)?\}|(?P<any>\.)|(?P<other>.)",
    re.DOTALL,
)
_CLASS_TOKEN = re.compile(
    r"(?P<property>\\[pP](?:\{[^}]*\}|.))|\\.|\[:\^?[a-z]+:\]|(?P<nested>\[|&&|--|~~)|(?P<end>\])|.", re.DOTALL
)
_HARMLESS_FLAGS = re.compile(r"\(\?[imsU-]+[:)]")


@dataclass(slots=True)
class _Node:
    in_place: list[str] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)
    weight: int = 1
    states: int = 0
    again: bool = False
    """It visits its in-place subschemas a second time, to find out what they evaluated."""


@dataclass(slots=True)
class Bounds:
    dialects: list[tuple[str, Any]]
    """Every `$schema`, with the pointer of its subschema."""
    problems: list[tuple[str, str]]
    """Why the schema is refused, as (pointer, problem)."""
    cheap: bool
    """May be compiled and run on the event loop: no value is visited too often, and no recursion is deep."""
    applications: int
    states: int

    @property
    def plain(self) -> bool:
        """Whether it compiles within a fraction of a millisecond."""
        return self.cheap and self.applications <= PLAIN_APPLICATIONS and self.states <= PLAIN_STATES

    def units(self, payload: bytes) -> int:
        """Return an upper bound of the work for this payload, in units of about 50 ns, if the schema is cheap."""
        values = 1 + sum(payload.count(mark) for mark in (b",", b"[", b"{", b":")) + len(payload) // 16
        return self.applications * values + self.states * len(payload) // STATES_A_UNIT


UNBOUNDED = Bounds([], [], False, SATURATED, SATURATED)


def find_bounds(schema: dict[str, Any] | bool) -> Bounds:
    reader = _Reader(schema)
    reader.read()
    bounds = Bounds(reader.dialects, list(reader.problems), False, SATURATED, SATURATED)
    try:
        in_place = _order({at: node.in_place for at, node in reader.nodes.items()})
    except CycleError as cycle:
        bounds.problems.append((cycle.args[1][0], "refers to itself without descending into the payload"))
        return bounds
    met: dict[str, int] = {}
    for at in in_place:
        node = reader.nodes[at]
        met[at] = min(SATURATED, 1 + (1 + node.again) * sum(met[inner] for inner in node.in_place))
    worst = max(met, key=met.__getitem__)
    if met[worst] > MAX_APPLICATIONS:
        bounds.problems.append((worst, f"expands to more than {MAX_APPLICATIONS} subschemas at one value"))
    if not bounds.problems and not reader.opaque:
        _bound_whole(bounds, reader.nodes)
    return bounds


def _bound_whole(bounds: Bounds, nodes: dict[str, _Node]) -> None:
    try:
        order = _order({at: node.in_place + node.inside for at, node in nodes.items()})
    except CycleError:
        return  # recursive: as deep as the payload, and possibly multiplying on the way
    totals: dict[str, tuple[int, int, int]] = {}
    for at in order:
        node = nodes[at]
        inner = [totals[other] for other in node.in_place + node.inside]
        totals[at] = (
            min(SATURATED, node.weight + sum(total[0] for total in inner)),
            min(SATURATED, node.states + sum(total[1] for total in inner)),
            1 + max((total[2] for total in inner), default=0),
        )
    bounds.applications, bounds.states, height = totals[""]
    kept = sum(node.states for node in nodes.values())
    bounds.cheap = (
        bounds.applications <= CHEAP_APPLICATIONS
        and max(bounds.states, kept) <= CHEAP_STATES
        and height <= CHEAP_HEIGHT
        and not any(node.again for node in nodes.values())
    )


def _order(edges: dict[str, list[str]]) -> list[str]:
    return list(TopologicalSorter(edges).static_order())


class _Reader:
    """Reads a schema keyword by keyword, because `const`, `enum` and `default` contain data, not schemas."""

    def __init__(self, root: dict[str, Any] | bool) -> None:
        self._root = root
        self.nodes: dict[str, _Node] = {}
        self.dialects: list[tuple[str, Any]] = []
        self.problems: list[tuple[str, str]] = []
        self.opaque = False
        """It has subschemas with an `$id`, so only the compiler can resolve its references."""
        self._pending: list[tuple[str, Any]] = [("", root)]
        self._anchors: dict[str, str] = {}
        self._references: list[tuple[str, str, str]] = []

    def read(self) -> None:
        while self._pending or self._references:
            while self._pending:
                self._read(*self._pending.pop())
            if self.opaque:
                return
            for at, keyword, reference in self._references:
                self._follow(at, keyword, reference)
            self._references = []

    def _read(self, at: str, schema: Any) -> None:
        if at in self.nodes:
            return
        node = self.nodes[at] = _Node()
        if not isinstance(schema, dict):
            return
        if "$schema" in schema:
            self.dialects.append((at, schema["$schema"]))
        self.opaque |= at != "" and "$id" in schema
        for keyword in ("$anchor", "$dynamicAnchor"):
            if isinstance(anchor := schema.get(keyword), str):
                self._anchors[anchor] = at
        self._references += [(at, word, schema[word]) for word in _REFERENCES if isinstance(schema.get(word), str)]
        self._weigh(node, schema)
        self._follow_keywords(node, at, schema)

    def _weigh(self, node: _Node, schema: dict[str, Any]) -> None:
        node.again = any(keyword in schema for keyword in _UNEVALUATED)
        for keyword in ("required", "enum", "dependentRequired"):
            if isinstance(schema.get(keyword), list | dict):
                node.weight += len(schema[keyword])
        if isinstance(pattern := schema.get("pattern"), str):
            node.states += pattern_states(pattern)
        if isinstance(patterns := schema.get("patternProperties"), dict):
            node.states += sum(pattern_states(pattern) for pattern in patterns)

    def _follow_keywords(self, node: _Node, at: str, schema: dict[str, Any]) -> None:
        for keywords, edges in ((_IN_PLACE, node.in_place), (_INSIDE, node.inside), (_HELD, [])):
            for keyword, shape in keywords.items():
                if keyword in schema:
                    for inner, subschema in _members(shape, schema[keyword]):
                        where = at + pointer(keyword, *inner)
                        edges.append(where)
                        self._pending.append((where, subschema))

    def _follow(self, at: str, keyword: str, reference: str) -> None:
        if not reference.startswith("#"):
            self.problems.append(
                (at + pointer(keyword), "points outside the schema; external references are never fetched")
            )
            return
        where = unquote(reference[1:])
        if where and not where.startswith("/"):
            where = self._anchors.get(where, "/no such anchor")
        found, target = _look_up(self._root, where)
        if found:
            self.nodes[at].in_place.append(where)
            self._pending.append((where, target))
        else:
            self.problems.append((at + pointer(keyword), "points nowhere: the schema has no such part"))


def _members(shape: str, value: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield the subschemas. Values of the wrong shape are left to the compiler, which refuses them."""
    if shape == "one":
        yield (), value
    elif shape == "list" and isinstance(value, list):
        yield from (((index,), member) for index, member in enumerate(value))
    elif shape == "map" and isinstance(value, dict):
        yield from (((name,), member) for name, member in value.items())


def _look_up(root: Any, where: str) -> tuple[bool, Any]:
    found = root
    for part in where.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isascii() and name.isdigit() and int(name[:9]) < len(found):
            found = found[int(name[:9])]
        else:
            return False, None
    return True, found


def pattern_states(pattern: str) -> int:
    """Return an upper bound of the states of its automaton over UTF-8 bytes; SATURATED if it cannot be determined."""
    groups, last, folded = [0], 0, False
    at = 0
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        assert token is not None, "it matches any character"
        at, kind = token.end(), token.lastgroup
        if kind in ("least", "most"):
            times = max(1, int((token["most"] or token["least"])[:9]))
            groups[-1] = min(SATURATED, groups[-1] + last * (times - 1))
            last = min(SATURATED, last * times)
            continue
        if kind == "flags":
            if not _HARMLESS_FLAGS.fullmatch(token[0]):
                return SATURATED
            folded = folded or "i" in token[0]
        if kind == "open" or (kind == "flags" and token[0].endswith(":")):
            groups.append(0)
            continue
        if kind == "close" and len(groups) > 1:
            last = groups.pop()
        elif kind == "class":
            last, at = _class_states(pattern, at, folded=folded)
        else:
            last = _atom_states(token, folded=folded)
        groups[-1] = min(SATURATED, groups[-1] + last)
    return min(SATURATED, sum(groups))


def _atom_states(token: re.Match[str], *, folded: bool) -> int:
    if token.lastgroup == "property":
        return FOLDED_STATES if folded else PROPERTY_STATES
    if token.lastgroup == "any" or token[0] in ("\\D", "\\S", "\\W"):
        return ANY_STATES
    return ANY_STATES if not token[0].isascii() and folded else len(token[0].encode("utf-8", "replace"))


def _class_states(pattern: str, at: int, *, folded: bool) -> tuple[int, int]:
    """Return the states of the class that begins before `at`, and where it ends. SATURATED for a nested or unterminated class."""
    negated = pattern.startswith("^", at)
    properties = wide = 0
    while token := _CLASS_TOKEN.match(pattern, at):
        at = token.end()
        if token.lastgroup == "nested":
            break
        if token.lastgroup == "end":
            if not negated and not properties and not wide:
                return 1, at
            most = FOLDED_STATES if folded else PROPERTY_STATES
            return ANY_STATES + most * (properties + (folded and wide > 0)) + ANY_STATES * wide, at
        properties += token.lastgroup == "property"
        wide += not token[0].isascii() or token[0] in ("\\D", "\\S", "\\W", "\\u", "\\x")
    return SATURATED, len(pattern)
