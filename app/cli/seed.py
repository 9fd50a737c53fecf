"""`make seed`: a service with believable data, to look at and to try things on.

Fills the Sluice at `--url`. If nothing responds there, it starts one with the Postgres in .sluice, and serves until Ctrl-C.
The queues deliver to a handler in this process, so that Sluice must run on the same machine. After this process has ended,
deliveries fail and are retried, as with any handler that is down.
"""

import ipaddress
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import typer

from app.cli import seed_data, seed_handler
from app.cli.client import Client
from app.cli.demo_processes import Child, DemoFailed, interrupt_on_sigterm
from app.cli.failures import UNREACHABLE, Failure
from app.cli.options import AsJson, Key, Url
from app.cli.screen import Listing, console, say_json
from app.settings import CLIENT_URL

STATES = ("scheduled", "ready", "running", "succeeded", "dead", "cancelled")


def seed(url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Fill a Sluice with queues, handlers, schedules and tasks in every state."""
    interrupt_on_sigterm()
    if not is_here(url):
        raise Failure(
            f"{url} is another machine, whose Sluice could not deliver to this command's handler; use one on this machine"
        )
    with ExitStack() as stack:
        client = stack.enter_context(Client(url, key, as_json))
        started = not _answers(client)
        if started:
            stack.enter_context(_service(url))
        handler_url = stack.enter_context(seed_handler.serving())
        seed_data.define(client, handler_url)
        for name, step in seed_data.STEPS:
            _say(name)
            step(client)
        _say("waiting for deliveries")
        seed_data.settle(client)
        _show(url, seed_data.counts(client), as_json)
        if started:
            _say(f"{url} serves this until Ctrl-C; `make seed` or `make up` finds it in .sluice again")
            _wait_for_ctrl_c()


def _answers(client: Client) -> bool:
    try:
        client.get("/health/ready")
    except Failure as failure:
        if failure.code == UNREACHABLE and (failure.problem or {}).get("code") == "unreachable":
            return False
        raise
    return True


@contextmanager
def _service(url: str) -> Iterator[None]:
    where = urlsplit(url)
    settings = {"SLUICE_PORT": str(where.port or 80)}
    if folder := os.environ.get("SLUICE_DATA_DIR"):
        settings["SLUICE_DATA_DIR"] = folder
    _say(f"nothing responds at {url}: starting `sluice up`")
    child = Child("sluice up", "app.cli.main", "up", settings=settings)
    try:
        child.wait_for(lambda line: line.get("event") == "ready", "it was ready")
        yield
    except DemoFailed as error:
        raise Failure(str(error)) from None
    finally:
        child.stop()


def _show(url: str, counts: dict[str, dict[str, int]], as_json: bool) -> None:
    if as_json:
        say_json({"url": url, "queues": counts, "schedules": list(seed_data.SCHEDULES)})
        return
    rows: list[tuple[Any, ...]] = [(name, *(found[state] or "" for state in STATES)) for name, found in counts.items()]
    console().print(Listing(("queue", *STATES), rows))


def _wait_for_ctrl_c() -> None:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        return


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def main() -> None:
    try:
        typer.run(seed)
    except Failure as failure:
        _say(failure.text)
        sys.exit(failure.code)


if __name__ == "__main__":
    main()
