"""`sluice limit`: how many tasks of a tenant run at once, across all its queues."""

from typing import Annotated

import typer

from app.cli.options import AsJson, Key, Url
from app.domain.plurals import counted
from app.settings import CLIENT_URL

NONE = "none"


def _most(text: str | None) -> str | None:
    if text is None or text == NONE or (text.isascii() and text.isdigit() and int(text) > 0):
        return text
    raise typer.BadParameter(f"{text!r} is neither a number from 1 up nor {NONE}")


def limit(
    most: Annotated[
        str | None,
        typer.Argument(
            metavar="[MAX|none]", callback=_most, help="The new limit; if omitted, the current one is shown."
        ),
    ] = None,
    tenant: Annotated[
        str | None,
        typer.Option(
            help="Set or show what this tenant is granted, an upper limit for its own; needs a key with scope operate."
        ),
    ] = None,
    url: Url = CLIENT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show or change how many tasks of a tenant run at once, across all its queues. The default is your own tenant."""
    from app.cli.client import Client
    from app.cli.screen import say_json

    path = "/limits" if tenant is None else f"/tenants/{tenant}/limits"
    with Client(url, key, as_json) as client:
        found = client.get(path)
        if most is not None:
            kept = {"rate": found["rate"]} if tenant is None else {}
            found = client.put(path, kept | {"max_concurrency": None if most == NONE else int(most)})
    if as_json:
        say_json(found)
        return
    who = "This tenant" if tenant is None else f"Tenant {tenant}"
    granted = found.get("granted_max_concurrency") if tenant is None else found["max_concurrency"]
    own = found["max_concurrency"] if tenant is None else None
    if own is not None:
        print(f"{who} runs at most {counted(own, 'task')} at once.")
    if granted is not None:
        print(f"{who} is granted at most {counted(granted, 'task')} at once by an operator.")
    if own is None and granted is None:
        print(f"{who} has no limit across its queues." if tenant is None else f"{who} is granted any number of tasks.")
