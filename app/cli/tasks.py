"""`sluice tasks`: list, show, enqueue, cancel, retry."""

import json
import sys
from typing import Annotated, Any

import typer

from app.cli import options
from app.cli.failures import NOT_ENDED, UNSUCCESSFUL, Failure
from app.cli.options import AsJson, Key, Queue, TaskId, TaskIds, Url
from app.domain.plurals import counted
from app.domain.tasks import MAX_PRIORITY, MIN_PRIORITY, Reason, State
from app.settings import CLIENT_URL

tasks = typer.Typer(help="List, show, enqueue, cancel and retry tasks.", no_args_is_help=True)

LIST = ("id", "queue", "type", "state", "attempt", "created (UTC)", "why")
ATTEMPTS = ("attempt", "started (UTC)", "took", "outcome", "status", "replica", "error")
SHOWN_CHARACTERS = 2_000
MAX_WAIT_SECONDS = 50.0
"""Many proxies cut off a request after 60 seconds."""

Wait = Annotated[
    float, typer.Option("--wait", min=0, max=MAX_WAIT_SECONDS, help="Wait up to this many seconds for the task to end.")
]


@tasks.command("list")
def list_tasks(
    queue: options.QueueFilter = None,
    state: Annotated[State | None, typer.Option("--state", help="Only tasks in this state.")] = None,
    reason: Annotated[Reason | None, typer.Option("--reason", help="Only tasks that ended for this reason.")] = None,
    type_: options.Type = None,
    tag: options.Tag = None,
    handler: options.Handler = None,
    correlation_id: options.CorrelationId = None,
    schedule: options.Schedule = None,
    batch: options.Batch = None,
    ended_from: options.EndedFrom = None,
    ended_to: options.EndedTo = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The largest number of tasks to list.")] = 50,
    url: Url = CLIENT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List tasks, newest first."""
    from app.cli.client import Client
    from app.cli.screen import Listing, console, instant, say_json, shown_id

    filters = {
        "queue": queue,
        "state": state,
        "reason": reason,
        "type": type_,
        "tag": tag,
        "handler": handler,
        "correlation_id": correlation_id,
        "schedule": schedule,
        "batch": batch,
        "ended_from": ended_from,
        "ended_to": ended_to,
    }
    with Client(url, key, as_json) as client:
        # a filter that matches little takes many pages, some of them empty
        with console(stderr=True).status("searching tasks"):
            found = list(client.pages("/tasks", limit, **filters))
        if not found:
            client.check_named(filters)
    if as_json:
        say_json(found)
        return
    if not found:
        console(stderr=True).print("No tasks match.")
        return
    rows = [
        (
            shown_id(task["id"]),
            task["queue"],
            task["type"],
            task["state"],
            _attempt(task),
            instant(task["created_at"]),
            _why(task),
        )
        for task in found
    ]
    console().print(Listing(LIST, rows))
    if len(found) == limit:
        console(stderr=True).print(f"Only the newest {counted(limit, 'task')}; --limit shows more.", style="dim")


def _attempt(task: dict[str, Any]) -> str:
    from app.domain.retries import MAX_ATTEMPTS  # brings msgspec, which most commands do without

    attempt, most = task["attempt"], task["max_attempts"]
    return f"{attempt}/{most}" if most <= MAX_ATTEMPTS else f"{attempt}"  # messages may be received any number of times


def _why(task: dict[str, Any]) -> str:
    waits = task.get("waiting_for")
    on = task.get("waiting_on") or {}
    if waits and (named := [on[part] for part in ("limit", "key") if on.get(part)]):
        waits = f"{waits} ({', '.join(named)})"
    return " · ".join(part for part in (task["reason"], waits and f"waiting for {waits}", task["last_error"]) if part)


@tasks.command()
def show(task_id: TaskId, wait: Wait = 0, url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Show a task and its attempts."""
    from app.cli.client import Client
    from app.cli.screen import say_json

    with Client(url, key, as_json) as client:
        task_id = client.whole_id("tasks", task_id)
        task = client.get(f"/tasks/{task_id}", wait_seconds=wait)
        attempts = list(client.pages(f"/tasks/{task_id}/attempts"))
    if as_json:
        say_json({**task, "attempts": attempts})
    else:
        _print_task(task, attempts)


def _print_task(task: dict[str, Any], attempts: list[dict[str, Any]]) -> None:
    from app.cli.screen import Listing, console, instant, span

    screen = console()
    fields = [(name, _written(value)) for name, value in task.items() if value not in (None, [], {}, False)]
    screen.print(Listing(("field", "value"), fields))
    if attempts:
        rows = [
            (
                attempt["number"],
                instant(attempt["started_at"]),
                span(attempt["started_at"], attempt["ended_at"]),
                attempt["outcome"] or "running",
                attempt["status"],
                attempt["replica"],
                attempt["error"],
            )
            for attempt in attempts
        ]
        screen.print()
        screen.print(Listing(ATTEMPTS, rows))


def _written(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}… (all of it: --json)"


@tasks.command()
def enqueue(
    queue: Queue,
    payload: Annotated[
        str, typer.Argument(metavar="[PAYLOAD]", help="The payload, as JSON; - reads it from stdin.")
    ] = "-",
    type_: Annotated[str | None, typer.Option("--type", help="The task's type.")] = None,
    delay: Annotated[float | None, typer.Option("--delay", min=0, help="Seconds until the task is due.")] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="INSTANT", help="When the task is due, as RFC 3339.")
    ] = None,
    ttl: Annotated[
        float | None, typer.Option("--ttl", help="Seconds after which the task expires if it is still waiting.")
    ] = None,
    priority: Annotated[
        int | None,
        typer.Option("--priority", min=MIN_PRIORITY, max=MAX_PRIORITY, help="Tasks with higher priority start first."),
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option("--idempotency-key", help="Enqueuing with the same key again returns the same task.")
    ] = None,
    unique_key: Annotated[
        str | None,
        typer.Option("--unique-key", help="While a task under this key has not ended, it is returned instead."),
    ] = None,
    correlation_id: Annotated[
        str | None, typer.Option("--correlation-id", help="An id of yours that travels with the task.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="A tag; can be repeated.")] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("--header", metavar="NAME:VALUE", help="A header for the delivery; can be repeated."),
    ] = None,
    timeout: Annotated[float | None, typer.Option("--timeout", help="Seconds an attempt can take.")] = None,
    max_attempts: Annotated[
        int | None, typer.Option("--max-attempts", min=1, help="The largest number of attempts, including the first.")
    ] = None,
    handler: Annotated[str | None, typer.Option("--handler", help="A handler other than the queue's.")] = None,
    task_key: Annotated[
        str | None, typer.Option("--task-key", help="Whose task it is: keys share a queue fairly.")
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option("--limit", metavar="NAME[:COST]", help="A named limit that it takes; can be repeated."),
    ] = None,
    wait: Wait = 0,
    url: Url = CLIENT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Enqueue a task; with --wait, also wait for it to end.

    With --wait the exit code is 0 if the task succeeded, 4 if it is dead or cancelled, 5 if it has not ended yet.
    """
    from app.cli.client import Client
    from app.cli.screen import say_json

    given = {
        "type": type_,
        "delay_seconds": delay,
        "run_at": at,
        "ttl_seconds": ttl,
        "priority": priority,
        "idempotency_key": idempotency_key,
        "unique_key": unique_key,
        "correlation_id": correlation_id,
        "tags": tag or None,
        "headers": dict(_header(text) for text in header or ()) or None,
        "timeout_seconds": timeout,
        "retry": None if max_attempts is None else {"max_attempts": max_attempts},
        "handler": handler,
        "key": task_key,
        "limits": [_use(text) for text in limit or ()] or None,
    }
    body = _body(payload, {name: value for name, value in given.items() if value is not None})
    with Client(url, key, as_json) as client:
        task = client.post(f"/queues/{queue}/tasks", body)
        if wait:
            task = client.get(f"/tasks/{task['id']}", wait_seconds=wait)
    if as_json:
        say_json(task)
    elif wait:
        _print_task(task, [])
    else:
        print(f"{task['id']} is {task['state']} in queue {queue}")
    if wait and task["state"] != "succeeded":
        raise typer.Exit(NOT_ENDED if task["ended_at"] is None else UNSUCCESSFUL)


def _body(payload: str, fields: dict[str, Any]) -> bytes:
    """A request body with the payload's bytes unchanged: they reach the handler as they are."""
    given = sys.stdin.buffer.read() if payload == "-" else payload.encode("utf-8", "surrogateescape")
    try:
        json.loads(given)
    except ValueError as error:
        raise typer.BadParameter(
            f"not valid JSON ({error}); text must be quoted: '\"hello\"'", param_hint="PAYLOAD"
        ) from None
    more = "".join(f",{json.dumps(name)}:{json.dumps(value)}" for name, value in fields.items())
    return b'{"payload":' + given.strip() + more.encode() + b"}"


def _use(text: str) -> dict[str, Any]:
    name, colon, cost = text.partition(":")
    if colon and not (cost.isascii() and cost.isdigit()):
        raise typer.BadParameter(f"{text!r} is not NAME or NAME:COST", param_hint="--limit")
    return {"name": name} | ({"cost": int(cost)} if colon else {})


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not (name and colon):
        raise typer.BadParameter(f"{text!r} is not NAME:VALUE", param_hint="--header")
    return name.strip(), value.strip()


@tasks.command()
def cancel(task_ids: TaskIds, url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Cancel tasks that have not ended. The calls of running tasks are aborted."""
    _each("cancel", task_ids, url, key, as_json)


@tasks.command()
def retry(task_ids: TaskIds, url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """Make dead and cancelled tasks ready again, and scheduled tasks ready now."""
    _each("retry", task_ids, url, key, as_json)


def _each(verb: str, task_ids: list[str], url: str, key: str | None, as_json: bool) -> None:
    """One refused task does not stop the others; the exit code reports it."""
    from app.cli.client import Client
    from app.cli.failures import REFUSED
    from app.cli.screen import say_json

    done, refused = [], []
    with Client(url, key, as_json) as client:
        for task_id in task_ids:
            try:
                task = client.post(f"/tasks/{client.whole_id('tasks', task_id)}/{verb}")
            except Failure as failure:
                if failure.code != REFUSED:
                    raise
                refused.append(failure.text if as_json else f"{task_id}: {failure.text}")
                continue
            done.append(task)
            if not as_json:
                print(f"{task_id} is {task['state']}")
    if as_json:
        say_json(done)
    if refused:
        raise Failure("\n".join(refused))
