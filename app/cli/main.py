"""The command `sluice`. Whatever takes long to import is imported by the command that needs it."""

import errno
import json
import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

import typer

from app.cli import definitions, limit, queues, status
from app.cli.failures import REFUSED, UNREACHABLE, USAGE, Failure
from app.cli.tasks import tasks
from app.cli.work import work
from app.settings import Settings, SettingsError, load, unknown_variables

T = TypeVar("T")

cli = typer.Typer(
    help="Durable queues and schedules as a plain HTTP service, on nothing but Postgres.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
keys = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)
cli.add_typer(keys, name="keys")
cli.command()(work)
cli.add_typer(tasks, name="tasks")


def run() -> None:
    """The entry point: what the user can mend is told in a sentence, the rest with its traceback."""
    try:
        cli()
    except SettingsError as error:
        for line in error.lines:
            _say(line)
        sys.exit(USAGE)
    except Failure as failure:
        from app.cli.screen import plain

        for line in failure.text.split("\n"):
            _say(plain(line))
        sys.exit(failure.code)
    except Exception as error:
        said = _plainly(error)
        if said is None:
            raise
        _say(said)
        sys.exit(UNREACHABLE if _is_unreachable(error) else REFUSED)


@cli.command()
def up(
    role: Annotated[Literal["all", "api", "engine"] | None, typer.Option(help="What this replica does.")] = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on; 0 takes a free one.")] = None,
) -> None:
    """Serve the API and run the engine until SIGTERM or Ctrl-C."""
    settings = _settings(role=role, host=host, port=port)
    from app.main import serve

    raise typer.Exit(_await(serve(settings)))


@cli.command()
def migrate() -> None:
    """Bring the database to this version's schema, and leave."""
    settings = _settings()
    from app.main import migrate
    from app.telemetry import logs

    logs.configure(settings.log_level)
    _await(migrate(settings))


@cli.command()
def config(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Print every setting, its value and where that comes from; secrets are hidden."""
    knobs = _settings().describe()
    if as_json:
        shown = {knob.variable: {"value": knob.value, "source": knob.source} for knob in knobs}
        print(json.dumps(shown, indent=2))
        return
    _print(("setting", "value", "source"), [(knob.variable, knob.shown, knob.source) for knob in knobs])


@keys.command("create")
def create_key(
    tenant: Annotated[str, typer.Option(help="Whose key it is; made if there is none of that name.")],
    scope: Annotated[Literal["use", "manage", "operate"], typer.Option(help="What the key may do.")] = "manage",
) -> None:
    """Make a key and print it, once."""
    settings = _quiet_settings()
    from app.main import create_key

    print(_await(create_key(settings, tenant, scope)))
    _say(f"This key for tenant {tenant}, scope {scope}, is shown once. Use it as: Authorization: Bearer slk_…")


@keys.command("list")
def list_keys(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """List the keys, never their secrets."""
    settings = _quiet_settings()
    from app.main import list_keys

    found = _await(list_keys(settings))
    if as_json:
        print(json.dumps(found, indent=2, default=str))
    elif found:
        _print(tuple(found[0]), [tuple(map(_shown, key.values())) for key in found])
    else:
        _say("There are no keys yet: sluice keys create --tenant NAME")


def _shown(value: object) -> object:
    return f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, datetime) else value


@keys.command("revoke")
def revoke_key(key_id: Annotated[str, typer.Argument(metavar="ID", help="As `sluice keys list` shows it.")]) -> None:
    """End a key's life."""
    settings = _quiet_settings()
    from app.main import revoke_key

    if not _await(revoke_key(settings, key_id)):
        _say(f"There is no key {key_id} in force: sluice keys list")
        raise typer.Exit(1)
    _say(f"Key {key_id} is revoked.")


@cli.command()
def listen(
    port: Annotated[int, typer.Argument(min=0, max=65_535, help="The port to listen on; 0 takes a free one.")],
    fail: Annotated[int, typer.Option(min=0, help="Answer 500 to the first N deliveries of each task.")] = 0,
    secret: Annotated[list[str] | None, typer.Option(help="A handler's signing secret, whsec_…; repeatable.")] = None,
    delay_seconds: Annotated[float, typer.Option("--delay", min=0, help="Seconds to wait before each answer.")] = 0.0,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
) -> None:
    """Be a webhook handler that verifies and prints what it receives: the first thing to point a queue at."""
    from app.cli.listen import Listener, serve
    from app.delivery.webhook.signing import parse_secret

    for given in secret or []:
        try:
            parse_secret(given)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--secret") from None
    raise typer.Exit(_await(serve(Listener(tuple(secret or ()), fail, delay_seconds), host, port)))


@cli.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version

    print(version("sluice"))


for command in (
    *(status.status, queues.queues, queues.pause, queues.resume, queues.purge, queues.redrive),
    limit.limit,
):
    cli.command()(command)
cli.command()(definitions.plan)
cli.command()(definitions.apply)


def _plainly(error: Exception) -> str | None:
    """What to tell of a failure that is not a fault of the program."""
    from app.domain.connections import NoRoom
    from app.domain.errors import Refusal
    from app.embedded.directory import EmbeddedError
    from app.store.db import Unavailable
    from app.store.migrations import SchemaMismatch

    if isinstance(error, Unavailable):
        return f"The database cannot be reached: {error}"
    if isinstance(error, Refusal):
        return "\n".join(
            [error.detail, *(f"{fault.pointer.removeprefix('/')} {fault.detail}" for fault in error.errors)]
        )
    if isinstance(error, EmbeddedError | SchemaMismatch | NoRoom):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
        return f"Cannot listen there ({error.strerror}): choose another --host or --port."
    return None


def _is_unreachable(error: Exception) -> bool:
    from app.store.db import Unavailable

    return isinstance(error, Unavailable)


def _quiet_settings() -> Settings:
    """For a command whose output is what it says: of the log only what went wrong is shown, on stderr."""
    from app.telemetry import logs

    logs.configure("warning")
    return _settings()


def _settings(**options: Any) -> Settings:
    for line in unknown_variables(os.environ):
        _say(f"warning: {line}")
    return load(**options)


def _await(work: Coroutine[Any, Any, T]) -> T:
    import uvloop

    runner: Callable[[Coroutine[Any, Any, T]], T] = uvloop.run
    return runner(work)


def _print(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    from app.cli.screen import Listing, console

    console().print(Listing(headings, rows))


def _say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    run()
