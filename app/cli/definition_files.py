"""Reads a definitions file: merges overlays, substitutes variables, and keeps the line of every value.

Scalars follow YAML 1.2's core schema, so `no` is a string and an instant stays text. A file contains no secrets, only
references to environment variables.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from app.cli.yaml_faults import Fault, Faults, why
from app.domain.definitions import SECTIONS
from app.domain.errors import pointer
from app.settings import PREFIX

OVERLAYS = "overlays"
OWNER = "owner"
REPLACED = frozenset({"payload", "payload_schema", "backoff"})
"""Fields that an overlay replaces as a whole: half of one and half of the other would make no sense."""
MAX_VALUES = 200_000

_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)\}?")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,3})?")
_MERGE = "tag:yaml.org,2002:merge"
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Scalar:
    text: str
    plain: bool
    """Not quoted: numbers, true, false and null are what they look like."""
    line: int


@dataclass(frozen=True, slots=True)
class Members:
    """A mapping: by key, the key's line and the value."""

    line: int
    by_key: dict[str, "tuple[int, Tree]"]


@dataclass(frozen=True, slots=True)
class Items:
    line: int
    items: "list[Tree]"


Tree = Scalar | Members | Items


@dataclass(frozen=True, slots=True)
class Read:
    """The sections as JSON, for the service to check."""

    document: dict[str, Any]
    lines: dict[str, int] = field(repr=False)
    """By pointer."""

    def line_of(self, where: str) -> int:
        """The line of what a pointer names, or of the nearest thing around it."""
        while where and where not in self.lines:
            where = where.rpartition("/")[0]
        return self.lines.get(where, 1)


def read(text: str, overlay: str | None, environment: Mapping[str, str]) -> Read:
    """Raises Faults, with every fault that could be found."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        made = _Trees()
        tree = Scalar("", True, 1) if root is None else made.of(root, ())
    except yaml.MarkedYAMLError as error:
        raise Faults([why(error, text)]) from None
    except yaml.YAMLError as error:
        raise Faults([Fault(1, "", str(error).splitlines()[0])]) from None
    except RecursionError:
        raise Faults([Fault(1, "", "is nested too deep")]) from None
    if not isinstance(tree, Members):
        raise Faults([*made.faults, Fault(1, "", f"expected the sections {', '.join(SECTIONS)}")])
    faults = [*made.faults, *_outline_faults(tree)]
    if faults:
        raise Faults(faults)
    chosen = _overlaid(tree, overlay)
    values = _Values(environment)
    document = {section: values.of(part, (section,), line) for section, (line, part) in chosen.by_key.items()}
    if values.faults:
        raise Faults(values.faults)
    return Read(document, values.lines)


class _Trees:
    """Nodes as trees; duplicate keys, tags and keys that are not text are faults."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self._around: set[int] = set()
        self._count = 0
        self._resolver = yaml.SafeLoader("")

    def of(self, node: Any, path: Path) -> Tree:
        line = node.start_mark.line + 1
        self._count += 1
        if self._count > MAX_VALUES:
            raise Faults([Fault(line, "", f"the file has more than {MAX_VALUES} values, including aliases")])
        if isinstance(node, yaml.ScalarNode):
            self._check_tag(node, self._resolver.resolve(yaml.ScalarNode, node.value, (not node.style, True)), path)  # type: ignore[no-untyped-call]
            return Scalar(node.value, node.style is None, line)
        if id(node) in self._around:
            self.faults.append(Fault(line, pointer(*path), "an alias contains itself"))
            return Scalar("", False, line)
        self._around.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                self._check_tag(node, "tag:yaml.org,2002:seq", path)
                return Items(line, [self.of(item, (*path, index)) for index, item in enumerate(node.value)])
            self._check_tag(node, "tag:yaml.org,2002:map", path)
            return Members(line, self._members(node, path))
        finally:
            self._around.discard(id(node))

    def _check_tag(self, node: Any, natural: str, path: Path) -> None:
        if node.tag != natural:
            detail = f"the tag {node.tag} is not supported: write the value, quoted if it is text"
            self.faults.append(Fault(node.start_mark.line + 1, pointer(*path), detail))

    def _members(self, node: Any, path: Path) -> dict[str, tuple[int, Tree]]:
        own: dict[str, tuple[int, Tree]] = {}
        merged: dict[str, tuple[int, Tree]] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == _MERGE:
                merged = self._merged(value, path) | merged
            elif not isinstance(key, yaml.ScalarNode) or (key.style is None and not isinstance(_plain(key.value), str)):
                shown = key.value if isinstance(key, yaml.ScalarNode) else "this"
                self.faults.append(Fault(line, pointer(*path), f"the key {shown} is not text: quote it"))
            elif key.value in own:
                detail = f"is a duplicate, first given in line {own[key.value][0]}"
                self.faults.append(Fault(line, pointer(*path, key.value), detail))
            else:
                own[key.value] = line, self.of(value, (*path, key.value))
        return merged | own

    def _merged(self, node: Any, path: Path) -> dict[str, tuple[int, Tree]]:
        """What `<<` merges in; the first of several wins."""
        found: dict[str, tuple[int, Tree]] = {}
        for part in reversed(node.value if isinstance(node, yaml.SequenceNode) else [node]):
            tree = self.of(part, path)
            if isinstance(tree, Members):
                found |= tree.by_key
            else:
                self.faults.append(Fault(part.start_mark.line + 1, pointer(*path), "<< takes only mappings"))
        return found


def _outline_faults(tree: Members) -> Iterator[Fault]:
    """Faults in the structure of the file and of all its overlays, selected or not."""
    line, owner = tree.by_key.get(OWNER, (1, Scalar("", False, 1)))
    if not isinstance(owner, Scalar) or _is_null(owner):
        yield Fault(line, pointer(OWNER), "expected a name, of the team or of the file")
    sections = Members(tree.line, {name: part for name, part in tree.by_key.items() if name != OWNER})
    yield from _section_faults(sections, (), {*SECTIONS, OVERLAYS})
    for section, (_, part) in sections.by_key.items():
        if section in SECTIONS and section != "limits" and isinstance(part, Members):
            for name, (at, definition) in part.by_key.items():
                if _is_null(definition):  # in an overlay, null would silently leave it out
                    yield Fault(
                        at, pointer(section, name), "is empty: for a definition with default values only, write {}"
                    )
    line, overlays = tree.by_key.get(OVERLAYS, (1, Members(1, {})))
    if not isinstance(overlays, Members):
        yield Fault(line, "/overlays", "expected a mapping of overlays by name, such as dev, staging, prod")
        return
    for name, (at, overlay) in overlays.by_key.items():
        if isinstance(overlay, Members):
            yield from _section_faults(overlay, (OVERLAYS, name), set(SECTIONS))
        else:
            yield Fault(at, pointer(OVERLAYS, name), f"expected the sections {', '.join(SECTIONS)}")


def _section_faults(tree: Members, path: Path, known: set[str]) -> Iterator[Fault]:
    for name, (line, section) in tree.by_key.items():
        where = pointer(*path, name)
        if name not in known:
            yield Fault(line, where, f"is not a section: the sections are {', '.join(sorted(known))}")
        elif not isinstance(section, Members) and name != OVERLAYS:
            yield Fault(
                line,
                where,
                "is empty: leave it out, or write {} for none" if _is_null(section) else "expected a mapping",
            )


def _is_null(tree: Tree) -> bool:
    return isinstance(tree, Scalar) and tree.plain and tree.text in _NULLS


def _overlaid(tree: Members, overlay: str | None) -> Members:
    base = {name: part for name, part in tree.by_key.items() if name != OVERLAYS}
    if overlay is None:
        return Members(tree.line, base)
    line, overlays = tree.by_key.get(OVERLAYS, (1, Members(1, {})))
    assert isinstance(overlays, Members), "its structure was checked"
    if overlay not in overlays.by_key:
        names = ", ".join(overlays.by_key) or "none"
        raise Faults([Fault(line, "/overlays", f"there is no overlay {overlay}; the overlays are: {names}")])
    _, over = overlays.by_key[overlay]
    assert isinstance(over, Members), "its structure was checked"
    merged = _merge(Members(tree.line, base), over, 0)
    for section_name, (_, section) in merged.by_key.items():
        if section_name == OWNER:
            continue
        assert isinstance(section, Members), "its structure was checked"
        for name in [name for name, (_, one) in section.by_key.items() if _is_null(one)]:
            del section.by_key[name]  # an overlay leaves out what the file defines
    return merged


def _merge(base: Members, over: Members, depth: int) -> Members:
    """Merges mappings and replaces everything else. Depth 2 is the fields of a definition."""
    merged = dict(base.by_key)
    for name, (line, part) in over.by_key.items():
        _, before = merged.get(name, (line, part))
        whole = depth >= 2 and name in REPLACED
        if isinstance(before, Members) and isinstance(part, Members) and before is not part and not whole:
            part = _merge(before, part, depth + 1)
        merged[name] = line, part
    return Members(over.line, merged)


class _Values:
    """Trees as values, with variables substituted from the environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.faults: list[Fault] = []
        self.lines: dict[str, int] = {}
        self._environment = environment

    def of(self, tree: Tree, path: Path, line: int) -> Any:
        where = pointer(*path)
        self.lines[where] = line
        if isinstance(tree, Members):
            return {key: self.of(part, (*path, key), at) for key, (at, part) in tree.by_key.items()}
        if isinstance(tree, Items):
            return [self.of(item, (*path, index), item.line) for index, item in enumerate(tree.items)]
        return self._scalar(tree, path, where)

    def _scalar(self, scalar: Scalar, path: Path, where: str) -> Any:
        confidential = _is_confidential(path)
        if confidential and not _is_null(scalar):
            self._check_reference(scalar, where, confidential)
        text = _VARIABLE.sub(lambda found: self._variable(found, scalar.line, where), scalar.text)
        taken_literally = not scalar.plain or (confidential is not None and text not in _NULLS)
        return text if taken_literally else _plain(text)

    def _variable(self, found: re.Match[str], line: int, where: str) -> str:
        if found[1] is None:
            return "${"
        name = found[1]
        if not found[0].endswith("}") or _VARIABLE_NAME.fullmatch(name) is None:
            self.faults.append(Fault(line, where, "expected ${NAME}; for a literal ${, write $${"))
        elif name.startswith(PREFIX):
            self.faults.append(
                Fault(
                    line,
                    where,
                    f"variables that begin with {PREFIX} are settings of Sluice, some of them secret: use a name other than {name}",
                )
            )
        elif not self._environment.get(name):
            self.faults.append(Fault(line, where, f"the environment variable {name} is empty or not set"))
        else:
            return self._environment[name]
        return ""

    def _check_reference(self, scalar: Scalar, where: str, what: str) -> None:
        references = [found for found in _VARIABLE.finditer(scalar.text) if found[1] is not None]
        whole = len(references) == 1 and references[0][0] == scalar.text
        if not references or (what == "secret" and not whole):
            detail = "a file must not contain secrets: name an environment variable, as in secret: ${NAME}"
            if what == "header":
                detail = "a file must not contain header values, which are never shown: use an environment variable, as in ${NAME}"
            self.faults.append(Fault(scalar.line, where, detail))


def _is_confidential(path: Path) -> str | None:
    if path[0] == "handlers" and len(path) == 3 and path[2] == "secret":
        return "secret"
    if path[0] == "handlers" and len(path) == 4 and path[2] == "headers":
        return "header"
    return None


def _plain(text: str) -> Any:
    """An unquoted scalar, by the core schema of YAML 1.2; a number that JSON cannot express stays text."""
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _INT.fullmatch(text):
        return int(text) if len(text) < 1000 else text
    if _FLOAT.fullmatch(text):
        number = float(text)
        return number if abs(number) != float("inf") else text
    return text
