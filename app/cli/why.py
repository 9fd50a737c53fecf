"""`sluice why`: what keeps a task, a queue or a schedule from moving, and what to do about it."""

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer

from app.cli.failures import USAGE, Failure
from app.cli.options import AsJson, Key, Url, checked_name, checked_task
from app.settings import CLIENT_URL

HOLDERS = ("task", "queue", "started (UTC)", "replica")


def why(
    task: Annotated[
        str | None, typer.Argument(metavar="[TASK]", callback=checked_task, help="The task's id, or its last part.")
    ] = None,
    queue: Annotated[
        str | None, typer.Option("--queue", callback=checked_name, help="Why this queue does not move.")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option("--schedule", callback=checked_name, help="Why this schedule did or did not fire.")
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="INSTANT", help="With --schedule: at this instant, as RFC 3339.")
    ] = None,
    url: Url = CLIENT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Say why a task, a queue or a schedule does not move, and what would help."""
    from app.cli.client import Client
    from app.cli.screen import say_json

    if [task, queue, schedule].count(None) != 2:
        raise Failure("Give one of TASK, --queue and --schedule.", USAGE)
    if at is not None and schedule is None:
        raise Failure("--at goes with --schedule.", USAGE)
    noun, name = ("tasks", task) if task else ("queues", queue) if queue else ("schedules", schedule)
    with Client(url, key, as_json) as client:
        if task is not None:
            name = client.whole_id("tasks", task)
        found = client.get(f"/{noun}/{quote(name or '', safe='')}/why", at=at)
    say_json(found) if as_json else _print(found)


TOLD = (
    *("ahead", "starts_about", "ready", "running", "first", "next_run_at", "starts_per_minute", "drains_about"),
    *("fires_next", "paused_at"),
)


def _print(found: dict[str, Any]) -> None:
    from app.cli.screen import Listing, console

    screen = console()
    _say(found["verdict"], "bold")
    for number, blocker in enumerate(found.get("blockers", ()), 1):
        screen.print()
        _print_blocker(number, blocker)
    for line in found.get("attempts", ()):
        _say(f"   attempt {line}")
    for step in [*found.get("actions", ()), *([found["next"]] if "next" in found else [])]:
        _print_step(step)
    running = found["running"] if isinstance(found.get("running"), dict) else {}
    told = [(name, found[name]) for name in TOLD if name in found and found[name] != running]
    told += [(name, json.dumps(value) if name == "progress" else value) for name, value in running.items()]
    if told:
        screen.print()
        screen.print(Listing(("field", "value"), told))


def _print_blocker(number: int, blocker: dict[str, Any]) -> None:
    from app.cli.screen import Listing, console, instant

    _say(f"{number}. {blocker['code']}: {blocker['detail']}")
    spans = [f"{word} {instant(blocker[word])} UTC" for word in ("since", "until") if word in blocker]
    if spans:
        _say("   " + ", ".join(spans))
    if holders := blocker.get("holders"):
        rows = [(one["task"], one["queue"], instant(one.get("started_at")), one.get("replica", "")) for one in holders]
        console().print(Listing(HOLDERS, rows))
    if "next" in blocker:
        _print_step(blocker["next"])


def _print_step(step: dict[str, Any]) -> None:
    _say(f"   → {step['text']}")
    if "method" in step:
        body = f" {json.dumps(step['body'], ensure_ascii=False)}" if "body" in step else ""
        _say(f"     {step['method']} {step['path']}{body}", "dim")


def _say(line: str, style: str | None = None) -> None:
    from rich.text import Text

    from app.cli.screen import console, plain

    console().print(Text(plain(line), style=style or ""))
