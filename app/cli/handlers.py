"""`sluice handlers`: list, show, test, enable, disable, rotate."""

import sys
from typing import Annotated, Any

import typer

from app.cli.asking import do, print_fields
from app.cli.options import AsJson, HandlerName, Key, Url, json_given
from app.settings import CLIENT_URL

handlers = typer.Typer(
    help="List, show and test handlers, enable and disable them, rotate their secrets.", no_args_is_help=True
)

LIST = ("handler", "leads to", "limit", "")
TEST_SECONDS = 3_600.0
"""The service cuts the call at the handler's own time-out."""


@handlers.command("list")
def list_handlers(url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """List handlers."""
    from app.cli.client import Client
    from app.cli.screen import Listing, console, say_json

    with Client(url, key, as_json) as client:
        found = list(client.pages("/handlers"))
    if as_json:
        say_json(found)
    elif found:
        rows = [
            (one["name"], _place(one), one["max_concurrency"], "" if one["enabled"] else "disabled") for one in found
        ]
        console().print(Listing(LIST, rows))
    else:
        console(stderr=True).print("There are no handlers yet. To create one: PUT /handlers/NAME")


def _place(handler: dict[str, Any]) -> str:
    """Return where tasks go: the URL of a webhook, the queue or the stream of a bridge."""
    stream = f"stream {handler.get('stream')}"  # its server is part of a secret
    return str(handler.get("url") or handler.get("queue_url") or stream)


@handlers.command()
def show(name: HandlerName, url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Show a handler and how its calls go."""
    from app.cli.client import Client
    from app.cli.screen import say_json

    with Client(url, key, as_json) as client:
        found = client.get(f"/handlers/{name}")
        found["health"] = client.get(f"/handlers/{name}/health")
    if as_json:
        say_json(found)
        return
    health = found.pop("health")
    print_fields({**found, "breaker state": health["state"], "running": health["running"], "calls": health["window"]})


@handlers.command("test")
def send_test(
    name: HandlerName,
    payload: Annotated[str | None, typer.Option("--payload", help="The payload to send, as JSON.")] = None,
    url: Url = CLIENT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Send one signed request now, and show what was sent and what came back. It counts nowhere.

    The exit code is 1 if a task would have failed.
    """
    from app.cli.client import Client
    from app.cli.screen import plain, say_json

    body = None if payload is None else {"payload": json_given(payload, "--payload")}
    with Client(url, key, as_json) as client:
        found = client.post(f"/handlers/{name}/test", body, timeout_seconds=TEST_SECONDS)
    if as_json:
        say_json(found)
    else:
        sent, received = found["sent"], found["received"]
        print(("POST " if sent["url"].startswith("http") else "") + plain(sent["url"]))
        _print_message(sent)
        if received is not None:
            print(f"\n{received['status']}")
            _print_message(received)
        print(f"\n{found['outcome']} in {found['duration_seconds']:.3f} s" + _because(found["error"]))
    if found["outcome"] != "succeeded":
        sys.exit(1)


def _print_message(message: dict[str, Any]) -> None:
    from app.cli.screen import plain

    for header, value in message["headers"].items():
        print(f"  {plain(header)}: {plain(value)}")
    if message["body"]:
        print(f"  {plain(message['body'])}")


def _because(error: str | None) -> str:
    from app.cli.screen import plain

    return "" if error is None else f": {plain(error)}"


@handlers.command()
def enable(name: HandlerName, url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Enable a handler. Its waiting tasks start."""
    do(lambda client: client.post(f"/handlers/{name}/enable"), f"Handler {name} is enabled.", url, key, as_json)


@handlers.command()
def disable(name: HandlerName, url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Disable a handler. Tasks for it are accepted, and wait."""
    words = f"Handler {name} is disabled. To enable it: sluice handlers enable {name}"
    do(lambda client: client.post(f"/handlers/{name}/disable"), words, url, key, as_json)


@handlers.command()
def rotate(
    name: HandlerName,
    overlap: Annotated[
        float, typer.Option("--overlap", min=0, help="Seconds in which calls carry both signatures.")
    ] = 86_400.0,
    url: Url = CLIENT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Give a handler a new signing secret, and print it. It cannot be shown again."""
    body = {"overlap_seconds": overlap}
    do(lambda client: client.post(f"/handlers/{name}/rotate-secret", body), _secret, url, key, as_json)


def _secret(answer: dict[str, Any]) -> str:
    return str(answer["secret"])
