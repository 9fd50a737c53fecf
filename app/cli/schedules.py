"""`sluice schedules`: list, show, history, trigger, pause, resume, backfill."""

from typing import Annotated, Any, get_args

import typer

from app.cli.asking import do, print_fields
from app.cli.options import AsJson, Key, ScheduleName, Url, json_given
from app.domain.plurals import counted
from app.domain.schedules.definitions import Overlap
from app.settings import CLIENT_URL

schedules = typer.Typer(help="List, show, trigger, backfill, pause and resume schedules.", no_args_is_help=True)

LIST = ("schedule", "queue", "when", "next (UTC)", "")
HISTORY = ("nominal time (UTC)", "times", "cause", "outcome", "lag", "took", "task")
OutcomeFilter = Annotated[str | None, typer.Option("--outcome", help="Only rows with this outcome, such as missed.")]
From = Annotated[str | None, typer.Option("--from", metavar="INSTANT", help="Only nominal times from here on.")]
To = Annotated[str | None, typer.Option("--to", metavar="INSTANT", help="Only nominal times before this one.")]
OverlapOption = Annotated[
    str | None,
    typer.Option("--overlap", help=f"What to do about a run that is under way: {', '.join(get_args(Overlap))}."),
]


@schedules.command("list")
def list_schedules(url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """List schedules, with the time at which each fires next."""
    from app.cli.client import Client
    from app.cli.screen import Listing, console, instant, say_json

    with Client(url, key, as_json) as client:
        found = list(client.pages("/schedules"))
    if as_json:
        say_json(found)
    elif found:
        rows = [
            (
                one["id"],
                one["queue"],
                one["reading"],
                instant(one["next_nominal_at"]),
                "paused" if one["paused"] else "",
            )
            for one in found
        ]
        console().print(Listing(LIST, rows))
    else:
        console(stderr=True).print("There are no schedules yet. To create one: PUT /schedules/NAME")


@schedules.command()
def show(name: ScheduleName, url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Show a schedule, its reading in plain English and its next times."""
    from app.cli.client import Client
    from app.cli.screen import say_json

    with Client(url, key, as_json) as client:
        found = client.get(f"/schedules/{name}")
    if as_json:
        say_json(found)
        return
    found["times"] = ", ".join(one["local"] for one in found["times"])
    print_fields(found)


@schedules.command()
def history(
    name: ScheduleName,
    outcome: OutcomeFilter = None,
    from_: From = None,
    to: To = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The largest number of rows to list.")] = 50,
    url: Url = CLIENT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show what became of each nominal time, newest first."""
    from app.cli.client import Client
    from app.cli.screen import Listing, console, instant, say_json, seconds, shown_id, span

    filters = {"outcome": outcome, "from": from_, "to": to}
    with Client(url, key, as_json) as client:
        found = list(client.pages(f"/schedules/{name}/history", limit, **filters))
    if as_json:
        say_json(found)
        return
    if not found:
        console(stderr=True).print("No rows match.")
        return
    rows = [
        (
            instant(row["nominal_at"]),
            row["count"],
            row["cause"],
            row["outcome"],
            seconds(row["lag_seconds"]),
            span(row["started_at"], row["completed_at"]),
            shown_id(row["task_id"]),
        )
        for row in found
    ]
    console().print(Listing(HISTORY, rows))


@schedules.command()
def trigger(
    name: ScheduleName,
    payload: Annotated[
        str | None, typer.Option("--payload", help="A payload for this run, as JSON; the default is the schedule's.")
    ] = None,
    overlap: OverlapOption = None,
    url: Url = CLIENT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Run a schedule now, beside its times."""
    given = {"payload": json_given(payload, "--payload"), "overlap": overlap}
    body = {field: value for field, value in given.items() if value is not None}

    def words(run: dict[str, Any]) -> str:
        return f"Schedule {name}: {run['outcome']}" + (f", task {run['task_id']}" if run["task_id"] else "")

    do(lambda client: client.post(f"/schedules/{name}/trigger", body), words, url, key, as_json)


@schedules.command()
def pause(name: ScheduleName, url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Pause a schedule. Its times are recorded as paused and do not run."""
    words = f"Schedule {name} is paused. To resume it: sluice schedules resume {name}"
    do(lambda client: client.post(f"/schedules/{name}/pause"), words, url, key, as_json)


@schedules.command()
def resume(name: ScheduleName, url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Resume a paused schedule."""
    do(lambda client: client.post(f"/schedules/{name}/resume"), f"Schedule {name} is resumed.", url, key, as_json)


@schedules.command()
def backfill(
    name: ScheduleName,
    from_: Annotated[str, typer.Option("--from", metavar="INSTANT", help="The first nominal time to run.")],
    to: Annotated[str, typer.Option("--to", metavar="INSTANT", help="Where to stop; this instant is not run.")],
    overlap: OverlapOption = None,
    rerun: Annotated[bool, typer.Option("--rerun", help="Also run times that have run before.")] = False,
    url: Url = CLIENT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Run nominal times of the past that did not run."""
    body = {"from": from_, "to": to, "rerun": rerun} | ({} if overlap is None else {"overlap": overlap})

    def words(answer: dict[str, Any]) -> str:
        parts = ("started", "waiting", "skipped", "passed_over")
        became = ", ".join(f"{answer[part]:,} {part.replace('_', ' ')}" for part in parts if answer[part])
        return f"Schedule {name}: {counted(answer['matched'], 'time')} in that window" + (became and f": {became}")

    do(lambda client: client.post(f"/schedules/{name}/backfill", body), words, url, key, as_json)
