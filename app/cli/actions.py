"""`sluice actions`: start, list, show and cancel actions on all tasks that match a filter; and `sluice errors`."""

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from app.cli import options
from app.cli.asking import print_fields
from app.cli.options import AsJson, Key, Queue, Url
from app.domain.plurals import counted
from app.settings import CLIENT_URL

if TYPE_CHECKING:
    from app.cli.client import Client

actions = typer.Typer(help="Start, list, show and cancel actions on many tasks.", no_args_is_help=True)

LIST = ("action", "kind", "state", "matched", "done", "refused", "failed", "started (UTC)", "why")
ERRORS = ("tasks", "dead", "last (UTC)", "task", "error")
PROBLEMS = ("task", "code", "why")
LOOK_SECONDS = 0.5

ActionId = Annotated[
    str,
    typer.Argument(metavar="ID", callback=options.checked_action, help="The action's id, or its last part."),
]
ActionKind = Annotated[
    Literal["cancel", "retry", "redrive", "purge", "reschedule", "set_priority"],
    typer.Argument(metavar="KIND", help="cancel, retry, redrive, purge, reschedule or set_priority."),
]


@actions.command()
def start(
    kind: ActionKind,
    queue: options.QueueFilter = None,
    state: Annotated[str | None, typer.Option("--state", help="Only tasks in this state.")] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Only tasks that ended for this reason.")] = None,
    type_: options.Type = None,
    tag: options.Tag = None,
    handler: options.Handler = None,
    correlation_id: options.CorrelationId = None,
    schedule: options.Schedule = None,
    batch: options.Batch = None,
    ended_from: options.EndedFrom = None,
    ended_to: options.EndedTo = None,
    error: Annotated[
        str | None, typer.Option("--error", metavar="SIGNATURE", help="Only tasks with this error; see sluice errors.")
    ] = None,
    run_at: Annotated[
        str | None, typer.Option("--run-at", metavar="INSTANT", help="Of reschedule: when the tasks run.")
    ] = None,
    priority: Annotated[int | None, typer.Option("--priority", help="Of set_priority.")] = None,
    rate: Annotated[float | None, typer.Option("--rate", metavar="PER SECOND", help="At most so many tasks.")] = None,
    because: Annotated[
        str | None, typer.Option("--because", metavar="TEXT", help="Why; it is kept with the action.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show how many tasks match, and some of them.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the end.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    url: Url = CLIENT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Start an action on all tasks that match the filters now, and wait until it has ended.

    It goes on when this command is stopped: sluice actions cancel ends it.
    """
    from app.cli.client import Client
    from app.cli.screen import say_json

    filters = {
        "queue": queue, "state": state, "reason": reason, "type": type_, "tag": tag, "handler": handler,
        "correlation_id": correlation_id, "schedule": schedule, "batch": batch, "ended_from": ended_from,
        "ended_to": ended_to, "error": error,
    }  # fmt: skip
    terms = {"run_at": run_at, "priority": priority, "rate_per_second": rate, "reason": because}
    body = {"kind": kind, "filter": _given(filters), **_given(terms)}
    with Client(url, key, as_json) as client:
        if dry_run:
            _show_preview(client.post("/actions", {**body, "dry_run": True}), as_json)
            return
        if not (yes or as_json) and sys.stdin.isatty():
            matched = client.post("/actions", {**body, "dry_run": True})["matched"]
            typer.confirm(f"{kind} {counted(matched, 'task')}?", abort=True)
        action = client.post("/actions", body)
        if not detach:
            action = _ended(client, action, quiet=as_json)
    say_json(action) if as_json else _show(action)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _show_preview(found: dict[str, Any], as_json: bool) -> None:
    from app.cli.screen import Listing, console, instant, say_json, shown_id

    if as_json:
        say_json(found)
        return
    least = "" if found["complete"] else "At least "
    print(f"{least}{counted(found['matched'], 'task')} would be changed.")
    rows = [
        (shown_id(task["id"]), task["queue"], task["state"], instant(task["created_at"])) for task in found["sample"]
    ]
    if rows:
        console().print(Listing(("task", "queue", "state", "created (UTC)"), rows))


def _ended(client: "Client", action: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """Return the action when it has ended, with a bar on a terminal meanwhile."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from app.cli.screen import console

    columns = (TextColumn(action["kind"]), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    screen = console(stderr=True)
    with Progress(*columns, console=screen, transient=True, disable=quiet or not screen.is_terminal) as progress:
        bar = progress.add_task(action["kind"], total=None)
        while action["state"] == "running":
            over = action["done"] + action["refused"] + action["failed"]
            progress.update(bar, total=action["matched"], completed=over)
            time.sleep(LOOK_SECONDS)
            action = client.get(f"/actions/{action['id']}")
    return action


def _show(action: dict[str, Any]) -> None:
    from app.cli.screen import Listing, console, shown_id

    problems = action.pop("errors")
    print_fields(action)
    if problems:
        screen = console()
        screen.print()
        screen.print(Listing(PROBLEMS, [(shown_id(one["task"]), one["code"], one["detail"]) for one in problems]))


@actions.command("list")
def list_actions(
    limit: Annotated[int, typer.Option("--limit", min=1, help="The largest number of actions to list.")] = 50,
    url: Url = CLIENT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List actions, newest first."""
    from app.cli.client import Client
    from app.cli.screen import Listing, console, instant, say_json, shown_id

    with Client(url, key, as_json) as client:
        found = list(client.pages("/actions", limit))
    if as_json:
        say_json(found)
    elif not found:
        console(stderr=True).print("There are no actions yet. To start one: sluice actions start KIND")
    else:
        rows = [
            (
                shown_id(action["id"]),
                *(action[name] for name in ("kind", "state", "matched", "done", "refused", "failed")),
                instant(action["created_at"]),
                action["reason"],
            )
            for action in found
        ]
        console().print(Listing(LIST, rows))


@actions.command()
def show(action_id: ActionId, url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Show an action, and the first tasks that it could not change."""
    from app.cli.client import Client
    from app.cli.screen import say_json

    with Client(url, key, as_json) as client:
        action = client.get(f"/actions/{client.whole_id('actions', action_id)}")
    say_json(action) if as_json else _show(action)


@actions.command()
def cancel(action_id: ActionId, url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """End an action early. What it has done stays done."""
    from app.cli.client import Client
    from app.cli.screen import say_json

    with Client(url, key, as_json) as client:
        action = client.post(f"/actions/{client.whole_id('actions', action_id)}/cancel")
    done = f"{counted(action['done'], 'task')} of {action['matched']:,} changed"
    say_json(action) if as_json else print(f"Action {action['id']} is {action['state']}: {done}.")


def errors(queue: Queue, url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """List the errors of a queue's tasks of the last day, alike ones together, the most frequent first."""
    from app.cli.client import Client
    from app.cli.screen import Listing, console, instant, say_json, shown_id

    with Client(url, key, as_json) as client:
        found = client.get(f"/queues/{queue}/errors")
    if as_json:
        say_json(found)
    elif not found["items"]:
        console(stderr=True).print(f"No task of queue {queue} has failed since yesterday.")
    else:
        rows = [
            (
                group["count"],
                group["dead"],
                instant(group["last_seen"]),
                shown_id(group["example"]["task"]),
                group["signature"],
            )
            for group in found["items"]
        ]
        console().print(Listing(ERRORS, rows))
