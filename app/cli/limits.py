"""`sluice limits`: list, show, set, delete, keys, pause, resume."""

import math
from typing import Annotated, Any, Literal
from urllib.parse import quote

import typer

from app.cli.asking import do, print_fields
from app.cli.limit import NONE
from app.cli.options import AsJson, Key, LimitName, Url
from app.settings import CLIENT_URL

limits = typer.Typer(help="List, show, set, delete, pause and resume named limits.", no_args_is_help=True)

LIST = ("limit", "at once", "rate", "keyed", "holding", "waiting keys", "")
KEYS = ("key", "at once", "rate", "holding", "waiting keys", "overridden", "")
HOLDERS = ("task", "queue", "key", "started (UTC)")

OfKey = Annotated[str | None, typer.Option("--of-key", metavar="KEY", help="Only this key of a keyed limit.")]


def _most(text: str | None) -> str | None:
    if text is None or text == NONE or (text.isascii() and text.isdigit() and int(text) > 0):
        return text
    raise typer.BadParameter(f"{text!r} is neither a number from 1 up nor {NONE}")


def _rate(text: str | None) -> str | None:
    if text is None or text == NONE:
        return text
    try:
        if all(0 < float(part) < math.inf for part in text.split("/", 1)):
            return text
    except ValueError:
        pass
    raise typer.BadParameter(f"{text!r} is neither {NONE} nor UNITS/SECONDS, such as 500/60")


@limits.command("list")
def list_limits(url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False) -> None:
    """List named limits, with what is taken of them."""
    from app.cli.client import Client
    from app.cli.screen import Listing, console, say_json

    with Client(url, key, as_json) as client:
        found = list(client.pages("/limits"))
    if as_json:
        say_json(found)
    elif found:
        console().print(Listing(LIST, [_row(limit) for limit in found]))
    else:
        console(stderr=True).print("There are no named limits yet. To create one: sluice limits set NAME")


def _row(limit: dict[str, Any]) -> tuple[object, ...]:
    return (
        limit["name"],
        limit["max_concurrency"],
        _rate_text(limit["rate"]),
        "keyed" if limit["keyed"] else "",
        limit["holding"],
        limit["waiting_keys"],
        "paused" if limit["paused"] else "",
    )


def _rate_text(rate: dict[str, Any] | None) -> str:
    if rate is None:
        return ""
    burst = "" if rate["burst"] is None else f", burst {rate['burst']:,}"
    return f"{rate['limit']:,.10g} per {rate['period_seconds']:,.10g} s{burst}"


@limits.command()
def show(
    name: LimitName, of_key: OfKey = None, url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False
) -> None:
    """Show a limit, or one key of it, and the tasks that hold it."""
    from app.cli.client import Client
    from app.cli.screen import Listing, console, instant, say_json

    with Client(url, key, as_json) as client:
        found = client.get(_path(name, of_key))
    if as_json:
        say_json(found)
        return
    holders = found.pop("holders")
    found["rate"] = _rate_text(found["rate"])
    print_fields(found)
    if holders:
        screen = console()
        rows = [(one["task"], one["queue"], one["key"], instant(one["started_at"])) for one in holders]
        screen.print()
        screen.print(Listing(HOLDERS, rows))


@limits.command("set")
def set_limit(
    name: LimitName,
    max_concurrency: Annotated[
        str | None,
        typer.Option(
            "--max-concurrency", metavar="MAX|none", callback=_most, help="How many of its tasks run at once."
        ),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option("--rate", metavar="UNITS/SECONDS|none", callback=_rate, help="How many start in that time."),
    ] = None,
    burst: Annotated[int | None, typer.Option("--burst", min=1, help="How many start at once after a pause.")] = None,
    keyed: Annotated[
        bool | None, typer.Option("--keyed/--not-keyed", help="It holds for each key by itself.", show_default=False)
    ] = None,
    description: Annotated[str | None, typer.Option("--description", help="What it is for.")] = None,
    of_key: OfKey = None,
    url: Url = CLIENT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Create a limit, or change what is given of it; with --of-key, only for that key.

    Once this returns, nothing starts above it.
    """
    from app.cli.client import Client
    from app.cli.failures import Failure
    from app.cli.screen import say_json

    path = _path(name, of_key)
    with Client(url, key, as_json) as client:
        try:
            found = client.get(path)
        except Failure as failure:
            if (failure.problem or {}).get("code") != "limit_not_found" or of_key is not None:
                raise
            found = {}
        fields = ("max_concurrency", "rate") if of_key else ("max_concurrency", "rate", "keyed", "description")
        body = {field: found[field] for field in fields if field in found}
        if of_key is not None and not found["overridden"]:
            body = {}
        if max_concurrency is not None:
            body["max_concurrency"] = None if max_concurrency == NONE else int(max_concurrency)
        if rate is not None or burst is not None:
            body["rate"] = _rate_body(rate, burst, body.get("rate"))
        body |= {field: value for field, value in (("keyed", keyed), ("description", description)) if value is not None}
        saved = client.put(path, body)
    what = f"Limit {name}" if of_key is None else f"Key {of_key} of limit {name}"
    say_json(saved) if as_json else print(f"{what} is set.")


def _rate_body(rate: str | None, burst: int | None, before: dict[str, Any] | None) -> dict[str, Any] | None:
    if rate == NONE:
        return None
    if rate is None:
        if before is None:
            raise typer.BadParameter("there is no rate yet; give --rate, too", param_hint="--burst")
        return before | {"burst": burst}
    units, _, seconds = rate.partition("/")
    return {"limit": float(units), "period_seconds": float(seconds or 1), "burst": burst}


@limits.command()
def delete(
    name: LimitName, of_key: OfKey = None, url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False
) -> None:
    """Delete a limit that nothing names; with --of-key, the values of that key."""
    what = f"Limit {name} is deleted." if of_key is None else f"Key {of_key} of limit {name} has the limit's values."
    do(lambda client: client.delete(_path(name, of_key)), what, url, key, as_json)


@limits.command()
def keys(
    name: LimitName,
    state: Annotated[
        Literal["full", "waiting"] | None,
        typer.Option("--state", help="Only keys without room, or keys that something waits for."),
    ] = None,
    url: Url = CLIENT_URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the keys of a limit that are held, waited for or overridden."""
    from app.cli.client import Client
    from app.cli.screen import Listing, console, say_json

    with Client(url, key, as_json) as client:
        found = list(client.pages(f"/limits/{name}/keys", state=state))
    if as_json:
        say_json(found)
        return
    if not found:
        console(stderr=True).print("No keys match.")
        return
    rows = [
        (
            one["key"],
            one["effective_max_concurrency"],
            _rate_text(one["rate"]),
            one["holding"],
            one["waiting_keys"],
            "overridden" if one["overridden"] else "",
            "paused" if one["paused"] else "",
        )
        for one in found
    ]
    console().print(Listing(KEYS, rows))


@limits.command()
def pause(
    name: LimitName, of_key: OfKey = None, url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False
) -> None:
    """Pause a limit, or one key of it: no task that takes it starts."""
    what = f"Limit {name} is paused." if of_key is None else f"Key {of_key} of limit {name} is paused."
    do(lambda client: client.post(_path(name, of_key) + "/pause"), what, url, key, as_json)


@limits.command()
def resume(
    name: LimitName, of_key: OfKey = None, url: Url = CLIENT_URL, key: Key = None, as_json: AsJson = False
) -> None:
    """Resume a paused limit, or one key of it."""
    what = f"Limit {name} is resumed." if of_key is None else f"Key {of_key} of limit {name} is resumed."
    do(lambda client: client.post(_path(name, of_key) + "/resume"), what, url, key, as_json)


def _path(name: str, of_key: str | None) -> str:
    return f"/limits/{name}" if of_key is None else f"/limits/{name}/keys/{quote(of_key, safe='')}"
