"""`sluice status`: all replicas and queues at a glance, once or continuously."""

import json
import sys
import time
from typing import Annotated, Any

import typer

from app.cli.failures import Failure
from app.cli.options import AsJson, Key, Url
from app.settings import CLIENT_URL

QUEUES = ("queue", "tenant", "handler", "scheduled", "ready", "running", "dead", "oldest ready", "")
REPLICAS = ("replica", "roles", "version", "started (UTC)", "")


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Keep running and refresh until Ctrl-C.")] = False,
    every_seconds: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between refreshes.")] = 2.0,
    url: Url = CLIENT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show replicas, queues, the database and active alarms. If keys are required, needs one with scope operate."""
    from app.cli.client import Client
    from app.cli.screen import console, say_json

    with Client(url, key, as_json) as client:
        if not watch:
            found = client.get("/status")
            say_json(found) if as_json else console().print(shown(found))
            return
        try:
            _watch(client, every_seconds, as_json)
        except KeyboardInterrupt:
            return


def _watch(client: Any, every_seconds: float, as_json: bool) -> None:
    from rich.live import Live

    from app.cli.screen import console

    found, screen = client.get("/status"), console()
    while as_json or not screen.is_terminal:
        print(json.dumps(found)) if as_json else screen.print(shown(found))
        sys.stdout.flush()
        time.sleep(every_seconds)
        found = client.get("/status")
    with Live(shown(found), console=screen, auto_refresh=False) as live:
        while True:
            time.sleep(every_seconds)
            try:
                found, fault = client.get("/status"), None
            except Failure as failure:
                fault = failure.text  # it may come back: people watch restarts
            live.update(shown(found, fault), refresh=True)


def shown(found: dict[str, Any], fault: str | None = None) -> Any:
    from rich.console import Group
    from rich.text import Text

    from app.cli.screen import Listing, instant, plain
    from app.cli.screen import seconds as spoken

    database = found["database"]
    head = f"Sluice {plain(found['version'])} · {database['connections']} of {database['max_connections']} database connections"
    parts: list[Any] = [Text(head, style="bold")]
    for alarm in found["alarms"]:
        where = f"{alarm['queue']}: " if "queue" in alarm else ""
        parts.append(Text(f"! {where}{plain(alarm['message'])}", style="yellow"))
    if fault is not None:
        parts.append(Text(fault, style="red"))
    queues = [
        (
            queue["queue"],
            queue["tenant"],
            queue["handler"],
            *(queue["tasks"][state] for state in ("scheduled", "ready", "running", "dead")),
            spoken(queue["oldest_ready_age_seconds"]),
            "paused" if queue["paused"] else "disabled" if queue["handler_enabled"] is False else "",
        )
        for queue in found["queues"]
    ]
    replicas = [
        (
            replica["name"],
            replica["roles"],
            replica["version"],
            instant(replica["started_at"]),
            "silent" if replica["silent"] else "draining" if replica["draining"] else "",
        )
        for replica in found["replicas"]
    ]
    parts += [
        Text(""),
        Listing(QUEUES, queues) if queues else Text("There are no queues yet. To create one: PUT /queues/NAME"),
    ]
    return Group(*parts, Text(""), Listing(REPLICAS, replicas))
