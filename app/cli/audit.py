"""`sluice audit`: who changed what, when, from where, with what result."""

import json
from typing import Annotated, Any

import typer

from app.cli.options import AsJson, Key, Url
from app.domain.plurals import counted
from app.settings import CLIENT_URL

HEADINGS = ("at (UTC)", "actor", "verb", "noun", "name", "outcome", "why")

Actor = Annotated[
    str | None,
    typer.Option("--actor", metavar="KEY|cli|system", help="Only what this key did, by its id, for example."),
]
Verb = Annotated[str | None, typer.Option("--verb", help="Only this verb, such as pause.")]
Noun = Annotated[str | None, typer.Option("--noun", help="Only changes of this kind of thing, such as queue.")]
Name = Annotated[str | None, typer.Option("--name", help="Only changes of what has this name or id.")]
From = Annotated[str | None, typer.Option("--from", metavar="INSTANT", help="Only changes at this instant or later.")]
To = Annotated[str | None, typer.Option("--to", metavar="INSTANT", help="Only changes before this instant.")]


def audit(
    actor: Actor = None,
    verb: Verb = None,
    noun: Noun = None,
    name: Name = None,
    from_: From = None,
    to: To = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The largest number of changes to list.")] = 50,
    url: Url = CLIENT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List who changed what, newest first, refused attempts included. Needs a key with scope manage."""
    from app.cli.client import Client
    from app.cli.screen import Listing, console, instant, say_json

    filters = {"actor": actor, "verb": verb, "noun": noun, "name": name, "from": from_, "to": to}
    with Client(url, key, as_json) as client:
        found = list(client.pages("/audit", limit, **filters))
    if as_json:
        say_json(found)
        return
    if not found:
        console(stderr=True).print("No changes match.")
        return
    rows = [
        (
            instant(row["at"]),
            _actor(row["actor"]),
            row["verb"],
            row["noun"],
            row["name"],
            row["outcome"],
            _why(row),
        )
        for row in found
    ]
    console().print(Listing(HEADINGS, rows))
    if len(found) == limit:
        console(stderr=True).print(f"Only the newest {counted(limit, 'change')}; --limit shows more.", style="dim")


def _actor(actor: Any) -> str:
    return actor if isinstance(actor, str) else actor["key"] or "anyone"


def _why(row: dict[str, Any]) -> str:
    """Return the code of a refused call, with how many there were; else the changes."""
    if row["code"] is None:
        return _changes(row["before"], row["after"])
    return row["code"] if row["calls"] == 1 else f"{row['code']}, {row['calls']} times"


def _changes(before: dict[str, Any] | None, after: dict[str, Any] | None) -> str:
    """Return the changed fields in a line: `paused: false → true`; of what is new or gone, only that."""
    if before is None or after is None:
        return ""
    return ", ".join(f"{name}: {_written(before.get(name))} → {_written(after.get(name))}" for name in after)


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
