"""`sluice plan` and `sluice apply`: handlers, queues, schedules and limits in a YAML file.

The file becomes a document here. The service works out what it would change, and changes it.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.failures import REFUSED, Failure
from app.cli.options import AsJson, Key, Url
from app.domain.plurals import counted
from app.settings import CLIENT_URL

if TYPE_CHECKING:
    from app.cli.client import Client
    from app.cli.definition_files import Read

WOULD_CHANGE = 2
APPLY_SECONDS = 600.0
"""Thousands of definitions are written one after another."""
SHOWN_VALUE = 200
MARKS = {"create": ("+", "green"), "update": ("~", "yellow"), "delete": ("-", "red")}
WORDS = {"create": "to create", "update": "to change", "delete": "to delete", "unchanged": "unchanged"}

File = Annotated[
    str | None, typer.Argument(metavar="FILE", help="The definitions file, in YAML; - reads it from stdin.")
]
App = Annotated[
    str | None,
    typer.Option(
        "--app", metavar="MODULE:NAME", help="Also what this program declares on its Sluice, found in this directory."
    ),
]
Overlay = Annotated[str | None, typer.Option("--overlay", "-o", metavar="NAME", help="Merge this overlay of the file.")]
Prune = Annotated[
    bool,
    typer.Option(
        "--prune", help="Also delete definitions of the file's owner that the file's sections do not contain."
    ),
]


def plan(
    file: File = None,
    app: App = None,
    overlay: Overlay = None,
    prune: Prune = False,
    check: Annotated[bool, typer.Option("--check", help="Exit with 2 if anything would change.")] = False,
    url: Url = CLIENT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show what applying a definitions file, or a program's definitions, would change, without changing it."""
    from app.cli.client import Client
    from app.cli.screen import say_json

    source = _source(file, app, overlay, as_json)
    with Client(url, key, as_json) as client:
        found = _ask(client, "plan", _document(source, prune), source, as_json)
    say_json(found) if as_json else _show(found)
    if check and _changing(found):
        raise typer.Exit(WOULD_CHANGE)


def apply(
    file: File = None,
    app: App = None,
    overlay: Overlay = None,
    prune: Prune = False,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes", "-y", help="Delete without asking for confirmation. Required for deleting without a terminal."
        ),
    ] = False,
    url: Url = CLIENT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Apply definitions of a file or a program. Pauses and disabled handlers stay; applying again changes nothing."""
    from app.cli.client import Client
    from app.cli.screen import say_json

    source = _source(file, app, overlay, as_json)
    document = _document(source, prune)
    with Client(url, key, as_json) as client:
        found = _ask(client, "plan", document, source, as_json)
        if not as_json:
            _show(found)
        if not yes:
            _confirm([change for change in found["changes"] if change["action"] == "delete"], as_json)
        made: list[str] = []
        if _changing(found):
            document["version"] = found["version"]  # what was shown is what is applied, or nothing is
            found = _ask(client, "apply", document, source, as_json)
            made = sorted(found.pop("secrets"))
    if as_json:
        say_json(found)
        return
    print("Applied." if _changing(found) else "Nothing to change.")
    for name in made:
        print(
            f"A signing secret was generated for handler {name} and is not shown here. "
            f"To set one, use `secret: ${{NAME}}`; to get a new one, POST /handlers/{name}/rotate-secret."
        )


def _confirm(deleted: list[dict[str, Any]], as_json: bool) -> None:
    """Ask before deleting. Without a terminal, deleting needs --yes."""
    from app.cli.screen import plain

    if not deleted:
        return
    names = [plain(f"{change['kind']} {change['name']}") for change in deleted]
    if not as_json and sys.stdin.isatty():
        print("To be deleted:", *names, sep="\n  ")
        typer.confirm(f"Delete {counted(len(names), 'definition')}?", abort=True)
        return
    detail = f"{counted(len(names), 'definition')} would be deleted; to delete without confirmation, use --yes"
    if as_json:
        errors = [
            {"pointer": f"/{change['kind']}s/{change['name']}", "detail": "would be deleted"} for change in deleted
        ]
        raise Failure(json.dumps({"code": "unconfirmed", "detail": detail, "errors": errors}), REFUSED)
    raise Failure("\n  ".join([detail + ":", *names]), REFUSED)


@dataclass(frozen=True)
class _Source:
    """What is to be applied, and where each part of it stands."""

    document: dict[str, Any]
    file: str | None
    read: "Read | None"
    app: str | None
    declared: dict[str, Any]

    def place_of(self, pointer: str) -> tuple[str, int | None]:
        """Return the file and the line, or the program, which has none."""
        section, _, rest = pointer.removeprefix("/").partition("/")
        if self.read is None or rest.partition("/")[0] in self.declared.get(section, {}):
            return str(self.app), None
        return str(self.file), self.read.line_of(pointer)


def _source(file: str | None, app: str | None, overlay: str | None, as_json: bool) -> _Source:
    if file is None and app is None:
        raise typer.BadParameter("give a definitions file, --app MODULE:NAME, or both", param_hint="FILE")
    if file is None and overlay is not None:
        raise typer.BadParameter("an overlay is part of a definitions file", param_hint="--overlay")
    from app.cli.declared import declared, merged

    read = None if file is None else _read(file, overlay, as_json)
    sections = {} if app is None else declared(app)
    document = {} if read is None else read.document
    return _Source(merged(document, sections, str(file), str(app)), file, read, app, sections)


def _document(source: _Source, prune: bool) -> dict[str, Any]:
    return source.document | {"prune": prune}


def _changing(found: dict[str, Any]) -> bool:
    return any(change["action"] != "unchanged" for change in found["changes"])


def _read(file: str, overlay: str | None, as_json: bool) -> "Read":
    from app.cli.definition_files import read
    from app.cli.yaml_faults import Faults

    try:
        text = (sys.stdin.buffer.read() if file == "-" else _bytes(file)).decode("utf-8-sig")
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}", REFUSED) from None
    except UnicodeDecodeError as error:
        raise Failure(f"{file} is not UTF-8 at byte {error.start}", REFUSED) from None
    try:
        return read(text, overlay, os.environ)
    except Faults as faults:
        placed = [(file, fault.line, fault.pointer, fault.detail) for fault in faults.faults]
        raise _refused("invalid", "the file is invalid", placed, as_json) from None


def _bytes(file: str) -> bytes:
    with open(file, "rb") as opened:
        return opened.read()


def _ask(client: "Client", verb: str, document: dict[str, Any], source: _Source, as_json: bool) -> Any:
    """The response, or the service's refusal with line numbers."""
    try:
        return client.post(f"/definitions/{verb}", document, timeout_seconds=APPLY_SECONDS)
    except Failure as failure:
        problem = failure.problem or {}
        if not problem.get("errors"):
            raise
        placed = [
            (*source.place_of(error["pointer"]), error["pointer"], error["detail"]) for error in problem["errors"]
        ]
        raise _refused(problem["code"], problem["detail"], placed, as_json) from None


def _refused(code: str, detail: str, faults: Sequence[tuple[str, int | None, str, str]], as_json: bool) -> Failure:
    """`faults` are (file or program, line, pointer, detail)."""
    from app.cli.screen import plain

    if as_json:
        errors = [
            {"pointer": pointer, "detail": detail, "file": file, "line": line} for file, line, pointer, detail in faults
        ]
        return Failure(json.dumps({"code": code, "detail": detail, "errors": errors}), REFUSED)
    lines = [
        plain(f"{file}{'' if line is None else f':{line}'}: {pointer + ': ' if pointer else ''}{detail}")
        for file, line, pointer, detail in faults
    ]
    if code not in ("invalid", "egress_denied", "payload_schema_mismatch"):
        lines.insert(0, plain(f"{code}: {detail}"))  # else it repeats the first of them
    return Failure("\n".join(lines), REFUSED)


def _show(found: dict[str, Any]) -> None:
    from rich.text import Text

    from app.cli.screen import console, plain

    screen = console()
    for change in found["changes"]:
        if change["action"] == "unchanged":
            continue
        mark, style = MARKS[change["action"]]
        screen.print(Text(plain(f"{mark} {change['kind']} {change['name'] or ''}".rstrip()), style=style))
        for field in change["changes"]:
            before = "" if change["action"] == "create" else f"{_value(field['from'])} → "
            screen.print(Text(plain(f"    {field['field']}: {before}{_value(field['to'])}")))
    actions = [change["action"] for change in found["changes"]]
    counts = [f"{actions.count(action)} {words}" for action, words in WORDS.items()]
    screen.print(Text(", ".join(counts) + ".", style="bold"))


def _value(value: Any) -> str:
    text = value if value == "***" else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_VALUE else text[: SHOWN_VALUE - 1] + "…"
