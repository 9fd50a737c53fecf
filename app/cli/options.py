"""The options shared by the commands that talk to a running Sluice."""

import json
import re
from collections.abc import Callable
from typing import Annotated, Any

import typer

from app.domain.ids import parse_uuid
from app.domain.names import NAME_RULE, is_name
from app.settings import CLIENT_URL, CLIENT_VARIABLES

PANEL = "Connection"
CLIENT_KEY = "SLUICE_KEY"


def _checked(rule: Callable[[str], bool], words: str) -> Callable[[str | None], str | None]:
    def check(value: str | None) -> str | None:
        if value is not None and not rule(value):
            raise typer.BadParameter(f"{value!r} is {words}")
        return value

    return check


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://")) and len(text.split("://")[1]) > 0 and text.isprintable()


checked_name = _checked(is_name, f"not a name: {NAME_RULE}")


_LAST_PART = re.compile(r"[0-9a-fA-F]{12}")


def _is_id(text: str) -> bool:
    return parse_uuid(text) is not None or _LAST_PART.fullmatch(text) is not None


checked_action = _checked(_is_id, "not an action id; sluice actions list shows them")
checked_task = _checked(_is_id, "not a task id; sluice tasks list shows them")


def _ids(values: list[str]) -> list[str]:
    for value in values:
        if not _is_id(value):
            raise typer.BadParameter(f"{value!r} is not a task id; sluice tasks list shows them")
    return values


Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="SLUICE_URL",
        rich_help_panel=PANEL,
        callback=_checked(_is_url, f"not a URL such as {CLIENT_URL}"),
        help=CLIENT_VARIABLES["SLUICE_URL"][1],
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        envvar=CLIENT_KEY,
        show_envvar=True,
        show_default=False,
        rich_help_panel=PANEL,
        help=CLIENT_VARIABLES[CLIENT_KEY][1],
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to stdout, and errors as JSON to stderr.")]
Queue = Annotated[str, typer.Argument(metavar="QUEUE", callback=checked_name, help="The queue's name.")]
Queues = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[QUEUE]...", callback=lambda names: [checked_name(name) for name in names or ()], help="Their names."
    ),
]
ScheduleName = Annotated[str, typer.Argument(metavar="SCHEDULE", callback=checked_name, help="The schedule's name.")]
SourceName = Annotated[str, typer.Argument(metavar="SOURCE", callback=checked_name, help="The source's name.")]
HandlerName = Annotated[str, typer.Argument(metavar="HANDLER", callback=checked_name, help="The handler's name.")]
BatchId = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        callback=_checked(_is_id, "not a batch id; sluice batches list shows them"),
        help="The batch's id, or its last part.",
    ),
]
LimitName = Annotated[str, typer.Argument(metavar="NAME", callback=checked_name, help="The limit's name.")]
QueueFilter = Annotated[str | None, typer.Option("--queue", callback=checked_name, help="Only tasks of this queue.")]
TaskIds = Annotated[
    list[str], typer.Argument(metavar="ID...", callback=_ids, help="The ids of one or more tasks, or their last parts.")
]
TaskId = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        callback=checked_task,
        help="The task's id, or its last part.",
    ),
]
Type = Annotated[str | None, typer.Option("--type", help="Only tasks of this type.")]
Tag = Annotated[str | None, typer.Option("--tag", help="Only tasks with this tag.")]
Handler = Annotated[str | None, typer.Option("--handler", callback=checked_name, help="Only tasks for this handler.")]
Schedule = Annotated[str | None, typer.Option("--schedule", callback=checked_name, help="Only tasks of this schedule.")]
Batch = Annotated[
    str | None,
    typer.Option(
        "--batch",
        metavar="ID",
        callback=_checked(lambda text: parse_uuid(text) is not None, "not a batch id"),
        help="Only tasks of this batch.",
    ),
]
CorrelationId = Annotated[str | None, typer.Option("--correlation-id", help="Only tasks with this correlation id.")]
EndedFrom = Annotated[
    str | None, typer.Option("--ended-from", metavar="INSTANT", help="Only tasks that ended at this instant or later.")
]
EndedTo = Annotated[
    str | None, typer.Option("--ended-to", metavar="INSTANT", help="Only tasks that ended before this instant.")
]


def json_given(text: str | None, option: str) -> Any:
    """Return the JSON in an option's value; None if it was not given. Raises BadParameter."""
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"not valid JSON ({error}); text must be quoted: '\"hello\"'", param_hint=option
        ) from None
