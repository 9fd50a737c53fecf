"""`make demo`: the main job, end to end, with real processes on their own database; it leaves nothing behind.

Exits with 0 if everything went as promised, with 1 and the reason if not, with 130 if interrupted.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx2
from rich.console import Console
from rich.table import Table

from app.cli import demo_story as story
from app.cli import demo_tasks
from app.cli.demo_processes import (
    LEASE_SECONDS,
    Child,
    DemoFailed,
    interrupt_on_sigterm,
    start_application,
    start_handler,
    start_replica,
)
from app.cli.demo_story import Replica, Row
from app.delivery.webhook.signing import new_secret

AGAIN = """\
To try it again by hand:
  .venv/bin/sluice up &
  .venv/bin/sluice listen 9000 --fail 1 &
  curl -X PUT --json '{"url": "http://127.0.0.1:9000/"}' http://127.0.0.1:8080/handlers/demo
  curl -X PUT --json '{"handler": "demo", "retry": {"max_attempts": 3}}' http://127.0.0.1:8080/queues/demo
  curl --json '{"payload": {"demo": "retry"}}' http://127.0.0.1:8080/queues/demo/tasks
  curl --json '{"payload": {"demo": "later"}, "delay_seconds": 2}' http://127.0.0.1:8080/queues/demo/tasks
  curl -i --json '{"payload": 42, "idempotency_key": "order-42"}' http://127.0.0.1:8080/queues/demo/tasks  # twice
  curl 'http://127.0.0.1:8080/tasks?queue=demo'
  curl http://127.0.0.1:8080/tasks/ID/attempts  # ID: from the response to an enqueue
A second replica: SLUICE_DATABASE_URL="$(cat .sluice/url)" SLUICE_PORT=8081 .venv/bin/sluice up"""


class Stage:
    """The screen, and the rows shown on it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.rows: list[tuple[Row, float]] = []
        self.children: list[Child] = []

    def play(self, step: str, act: Callable[[], Row]) -> None:
        with self.console.status(f"{step} …"):
            began = time.monotonic()
            self.done(act(), time.monotonic() - began)

    def done(self, row: Row, seconds: float) -> None:
        self.rows.append((row, seconds))
        self.say(f"[green]✓[/] {row.step}: {row.outcome}; {row.seen} [dim]({seconds:.1f} s)[/]")

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)

    def table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for column in ("what", "task", "outcome", "attempts", "seconds"):
            table.add_column(column, no_wrap=True, justify="right" if column in ("attempts", "seconds") else "left")
        for row, seconds in self.rows:
            table.add_row(row.step, row.task, row.outcome, str(row.attempts), f"{seconds:.1f}")
        return table


def perform(stage: Stage, stack: ExitStack) -> None:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-demo-", ignore_cleanup_errors=True)))
    secret = new_secret()
    with stage.console.status("starting a replica with its own database, and a handler …"):
        child = _started(stage, stack, start_replica("the first replica", folder))
        handler = _started(stage, stack, start_handler(secret))
        first = _joined(stack, child)
        url = handler.wait_for(lambda line: "url" in line, "it listens")["url"]
        stage.say(f"[green]✓[/] a replica at {first.http.base_url}, a handler at {url}")
    database_url = (folder / "data" / "url").read_text().strip()
    child = _started(stage, stack, start_replica("the second replica", folder, database_url))
    story.define(first, url, secret)

    stage.play("delivery", lambda: story.delivery(first))
    stage.play("retry", lambda: story.retry(first))
    stage.play("dead letter", lambda: story.dead_letter(first))
    stage.play("delayed", lambda: story.delayed(first))
    stage.play("replay", lambda: story.idempotent_replay(first, handler))
    with stage.console.status("a second replica starts …"):
        second = _joined(stack, child)
    stage.play("2 replicas", lambda: story.second_replica(first, second))
    stage.say("  the same in Python, with the SDK:")
    for line in demo_tasks.lines():
        stage.console.print(f"    {line}", style="cyan", markup=False, highlight=False, soft_wrap=True)
    stage.play("SDK", lambda: story.client(first, lambda url: _started(stage, stack, start_application(url))))
    _play_crash(stage, first, second, handler)


def _play_crash(stage: Stage, first: Replica, second: Replica, handler: Child) -> None:
    began = time.monotonic()
    with stage.console.status(
        f"kill -9; the lease of {LEASE_SECONDS} s must expire before another replica can take the task …"
    ):
        for seen in story.crash(first, second, handler):
            if isinstance(seen, Row):
                stage.done(seen, time.monotonic() - began)
            else:
                stage.say(f"  {seen}")


def _started(stage: Stage, stack: ExitStack, child: Child) -> Child:
    stack.callback(child.stop)
    stage.children.append(child)
    return child


def _joined(stack: ExitStack, child: Child) -> Replica:
    ready = child.wait_for(lambda line: line.get("event") == "ready", "it is ready")
    http = stack.enter_context(httpx2.Client(base_url=ready["url"], timeout=10, trust_env=False))
    return Replica(child, ready["replica"], http)


def main() -> int:
    interrupt_on_sigterm()
    console = Console()
    stage = Stage(console)
    began = time.monotonic()
    try:
        with ExitStack() as stack:
            perform(stage, stack)
            with console.status("stopping everything …"):
                stack.close()
    except KeyboardInterrupt:
        stage.say("interrupted; everything that was started is stopped")
        return 130
    except (DemoFailed, httpx2.HTTPError) as error:
        console.print(f"✗ not as promised: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        for child in stage.children:
            console.print(
                f"{child.name}, last lines:\n{child.last_words()}", markup=False, highlight=False, soft_wrap=True
            )
        return 1
    console.print()
    console.print(stage.table())
    console.print(f"\nAll as promised, in {time.monotonic() - began:.0f} s. Nothing is left behind.\n", highlight=False)
    console.print(AGAIN, markup=False, highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
