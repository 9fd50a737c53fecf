"""`sluice sources`: list, show, test, pause, resume."""

import sys
from typing import Any

import typer

from app.cli.asking import do, print_fields
from app.cli.options import AsJson, Key, SourceName, Url
from app.settings import CLIENT_URL

sources = typer.Typer(help="List, show, test, pause and resume sources.", no_args_is_help=True)

LIST = ("source", "from", "queue", "waiting there", "received", "")
TEST_SECONDS = 60.0


@sources.command("list")
def list_sources(url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """List sources, with how much waits at each."""
    from app.cli.client import Client
    from app.cli.screen import Listing, console, say_json

    with Client(url, key, as_json) as client:
        found = list(client.pages("/sources"))
    if as_json:
        say_json(found)
    elif found:
        rows = [(one["name"], _address(one), one["queue"], one["lag"], one["received"], _trouble(one)) for one in found]
        console().print(Listing(LIST, rows))
    else:
        console(stderr=True).print("There are no sources yet. To create one: PUT /sources/NAME")


def _address(one: dict[str, Any]) -> str:
    return str(one["queue_url"] if one["kind"] == "sqs" else f"stream {one['stream']}, group {one['group']}")


def _trouble(one: dict[str, Any]) -> str:
    if one["paused"]:
        return "paused"
    return f"failing: {one['last_error']}" if one["failing_since"] is not None else ""


@sources.command()
def show(name: SourceName, url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Show a source and how it fares, over all replicas."""
    from app.cli.client import Client
    from app.cli.screen import say_json

    with Client(url, key, as_json) as client:
        found = client.get(f"/sources/{name}")
    say_json(found) if as_json else print_fields(found)


@sources.command("test")
def look_at(name: SourceName, url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Connect to a source and look at how much waits there, without taking a message.

    The exit code is 1 if that fails.
    """
    from app.cli.client import Client
    from app.cli.screen import plain, say_json

    with Client(url, key, as_json) as client:
        found = client.post(f"/sources/{name}/test", timeout_seconds=TEST_SECONDS)
    if as_json:
        say_json(found)
    elif found["ok"]:
        waiting = "" if found["lag"] is None else f": {found['lag']} waiting"
        print(f"Source {name} works{waiting}.")
    else:
        print(f"Source {name} fails: {plain(found['error'])}")
    if not found["ok"]:
        sys.exit(1)


@sources.command()
def pause(name: SourceName, url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Pause a source. Nothing more is received."""
    words = f"Source {name} is paused. To resume it: sluice sources resume {name}"
    do(lambda client: client.post(f"/sources/{name}/pause"), words, url, key, as_json)


@sources.command()
def resume(name: SourceName, url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Resume a paused source."""
    do(lambda client: client.post(f"/sources/{name}/resume"), f"Source {name} is resumed.", url, key, as_json)
