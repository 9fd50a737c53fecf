"""`sluice queues`, and the commands for a single queue: pause, resume, purge, redrive."""

import sys
from typing import Annotated, Any

import typer

from app.cli import options
from app.cli.options import AsJson, Key, Queue, Queues, Url
from app.domain.plurals import are, counted
from app.settings import CLIENT_URL

HEADINGS = (
    "queue",
    "handler",
    "limit",
    "scheduled",
    "ready",
    "running",
    "dead",
    "ended/min",
    "succeeded",
    "p95 wait",
    "",
)
REDRIVE_PAGE = 1_000
PURGE_SECONDS = 3_600.0
"""The response comes when everything is cancelled, and a queue can hold millions of tasks."""


def queues(url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """List queues, with their counts, rates and waiting times."""
    from app.cli.client import Client
    from app.cli.screen import Listing, console, say_json, seconds

    with Client(url, key, as_json) as client:
        found = [{**queue, "stats": client.get(f"/queues/{queue['name']}/stats")} for queue in client.pages("/queues")]
    if as_json:
        say_json(found)
        return
    if not found:
        console(stderr=True).print("There are no queues yet. To create one: PUT /queues/NAME")
        return
    rows = [
        (
            queue["name"],
            queue["handler"] or "(pull)",
            queue["max_concurrency"],
            *(stats["counts"][state] for state in ("scheduled", "ready", "running", "dead")),
            round(stats["per_minute"]["ended"], 1),
            "" if stats["success_share"] is None else f"{stats['success_share']:.1%}",
            seconds(stats["wait_seconds"]["p95"]),
            "paused" if queue["paused"] else "",
        )
        for queue in found
        for stats in (queue["stats"],)
    ]
    console().print(Listing(HEADINGS, rows))


def pause(
    names: Queues = None,
    all_: Annotated[bool, typer.Option("--all", help="Pause every queue that is not paused.")] = False,
    url: Url = CLIENT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Pause queues: they accept tasks but start none."""
    paused = _switch("pause", names, all_, url, key, as_json)
    if paused:
        typer.echo(f"To resume: sluice resume {' '.join(paused)}", err=as_json)


def resume(
    names: Queues = None,
    all_: Annotated[bool, typer.Option("--all", help="Resume every queue that is paused.")] = False,
    url: Url = CLIENT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Resume paused queues."""
    _switch("resume", names, all_, url, key, as_json)


def _switch(verb: str, names: list[str] | None, all_: bool, url: str, key: str | None, as_json: bool) -> list[str]:
    """Return the names of the queues that were switched, in order. One after another: what is refused ends it."""
    from app.cli.client import Client
    from app.cli.screen import say_json

    if all_ == bool(names):
        raise typer.BadParameter("give the names of queues, or --all", param_hint="QUEUE")
    done = []
    with Client(url, key, as_json) as client:
        for name in names or [one["name"] for one in client.pages("/queues") if one["paused"] is (verb == "resume")]:
            done.append(client.post(f"/queues/{name}/{verb}"))
            if not as_json:
                print(f"Queue {name} is {verb}d.")
    if as_json:
        say_json(done if all_ or len(done) != 1 else done[0])
    elif not done:
        print(f"No queue is {'paused' if verb == 'resume' else 'running'}.")
    return [one["name"] for one in done]


def purge(
    queue: Queue,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask for confirmation. Without a terminal, nobody is asked.")
    ] = False,
    url: Url = CLIENT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Cancel all waiting tasks of a queue, including delayed and retrying ones.

    Running tasks continue. Cancelled tasks stay readable for their retention; `sluice tasks retry` makes single ones ready again.
    """
    if not (yes or as_json) and sys.stdin.isatty():
        typer.confirm(f"Cancel all waiting tasks of queue {queue}, including delayed and retrying ones?", abort=True)
    from app.cli.client import Client
    from app.cli.screen import say_json

    with Client(url, key, as_json) as client:
        answer = client.post(f"/queues/{queue}/purge", timeout_seconds=PURGE_SECONDS)
    purged = answer["purged"]
    words = f"{counted(purged, 'waiting task')} of queue {queue} {are(purged)} cancelled."
    say_json(answer) if as_json else print(words)


def redrive(
    queue: Queue,
    reason: Annotated[str | None, typer.Option("--reason", help="Only tasks that died for this reason.")] = None,
    type_: options.Type = None,
    tag: options.Tag = None,
    handler: options.Handler = None,
    correlation_id: options.CorrelationId = None,
    ended_from: options.EndedFrom = None,
    ended_to: options.EndedTo = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="The largest number of tasks to redrive; the default is all of them."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show how many tasks would be redriven.")] = False,
    url: Url = CLIENT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Make dead tasks of a queue ready again, each with a full set of attempts."""
    from app.cli.client import Client
    from app.cli.screen import say_json

    given = {
        "reason": reason,
        "type": type_,
        "tag": tag,
        "handler": handler,
        "correlation_id": correlation_id,
        "ended_from": ended_from,
        "ended_to": ended_to,
    }
    filters = {name: value for name, value in given.items() if value is not None}
    with Client(url, key, as_json) as client:
        path = f"/queues/{queue}/redrive"
        if dry_run:
            answer = client.post(path, {**filters, "limit": min(REDRIVE_PAGE, limit or REDRIVE_PAGE), "dry_run": True})
        else:
            answer = _redriven(client, path, filters, limit, quiet=as_json)
        if not answer["matched"]:
            client.check_named(filters)
    if as_json:
        say_json(answer)
        return
    if dry_run:
        would = min(answer["matched"], limit or answer["matched"])
        print(f"{counted(would, 'dead task')} of queue {queue} would be ready again.")
        return
    moved, left = answer["moved"], answer["remaining"]
    print(f"{counted(moved, 'dead task')} of queue {queue} {are(moved)} ready again.")
    if left:
        match = "matches and is" if left == 1 else "match and are"
        print(f"{left:,} that {match} still dead: sluice tasks list --queue {queue} --state dead")


def _redriven(client: Any, path: str, filters: dict[str, Any], limit: int | None, *, quiet: bool) -> dict[str, int]:
    """Page by page, but no more than matched at first: tasks that die again meanwhile would be moved forever."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from app.cli.screen import console

    columns = (TextColumn("redriving"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    screen = console(stderr=True)
    matched = moved = 0
    with Progress(*columns, console=screen, transient=True, disable=quiet or not screen.is_terminal) as progress:
        bar = progress.add_task("redrive", total=None)
        wanted = limit
        while True:
            page = REDRIVE_PAGE if wanted is None else min(REDRIVE_PAGE, wanted - moved)
            answer = client.post(path, {**filters, "limit": page})
            if not matched:
                matched = answer["matched"]
                wanted = matched if limit is None else min(limit, matched)
            moved += answer["moved"]
            progress.update(bar, total=wanted, completed=moved)
            if not answer["moved"] or not answer["remaining"] or wanted is None or moved >= wanted:
                return {"matched": matched, "moved": moved, "remaining": answer["remaining"]}
