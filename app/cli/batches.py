"""`sluice batches`: list, show, cancel, retry."""

from typing import TYPE_CHECKING, Any

import typer

from app.cli.asking import do, print_fields
from app.cli.options import AsJson, BatchId, Key, Url
from app.domain.plurals import are, counted
from app.settings import CLIENT_URL

if TYPE_CHECKING:
    from app.cli.client import Client

batches = typer.Typer(help="List, show, cancel and retry batches.", no_args_is_help=True)

LIST = ("batch", "queue", "tasks", "ended", "dead", "created (UTC)", "")


@batches.command("list")
def list_batches(
    limit: int = typer.Option(50, "--limit", min=1, help="The largest number of batches to list."),
    url: Url = CLIENT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List batches, newest first."""
    from app.cli.client import Client
    from app.cli.screen import Listing, console, instant, say_json, shown_id

    with Client(url, key, as_json) as client:
        found = list(client.pages("/batches", limit))
    if as_json:
        say_json(found)
    elif found:
        rows = [
            (
                shown_id(one["id"]),
                one["queue"],
                one["total"],
                "" if one["percent"] is None else f"{one['percent']:.0f} %",
                one["counts"]["dead"] or "",
                instant(one["created_at"]),
                _state(one),
            )
            for one in found
        ]
        console().print(Listing(LIST, rows))
    else:
        console(stderr=True).print("There are no batches yet. To create one: POST /batches")


def _state(batch: dict[str, Any]) -> str:
    if batch["cancelled_at"]:
        return "cancelled"
    return "completed" if batch["completed_at"] else "running" if batch["sealed"] else "open"


@batches.command()
def show(batch_id: BatchId, url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Show a batch and how far it has come."""
    from app.cli.client import Client
    from app.cli.screen import say_json

    with Client(url, key, as_json) as client:
        found = client.get(_path(client, batch_id))
    if as_json:
        say_json(found)
        return
    counts = ", ".join(f"{count:,} {state}" for state, count in found.pop("counts").items() if count)
    print_fields({"state": _state(found), **found, "tasks": counts})


def _path(client: "Client", batch_id: str) -> str:
    return f"/batches/{client.whole_id('batches', batch_id)}"


@batches.command()
def cancel(batch_id: BatchId, url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Cancel all tasks of a batch that have not ended. Its on_complete still runs."""
    words = f"Batch {batch_id} is cancelled."
    do(lambda client: client.post(_path(client, batch_id) + "/cancel"), words, url, key, as_json)


@batches.command()
def retry(batch_id: BatchId, url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Make the dead tasks of a batch ready again, each with a full set of attempts."""

    def words(answer: dict[str, Any]) -> str:
        moved = answer["moved"]
        return f"{counted(moved, 'dead task')} of batch {batch_id} {are(moved)} ready again."

    do(lambda client: client.post(_path(client, batch_id) + "/retry"), words, url, key, as_json)
