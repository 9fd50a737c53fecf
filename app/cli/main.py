"""The command `sluice`. Imports that take long are inside the command that needs them."""

import errno
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import typer

from app.cli import audit, definitions, limit, queues, roles, status, why
from app.cli.actions import actions, errors
from app.cli.batches import batches
from app.cli.failures import REFUSED, UNREACHABLE, USAGE, Failure
from app.cli.handlers import handlers
from app.cli.keys import keys
from app.cli.limits import limits
from app.cli.mcp import mcp
from app.cli.process import say, settings_of, wait_for
from app.cli.root import Root
from app.cli.schedules import schedules
from app.cli.sources import sources
from app.cli.tasks import tasks
from app.cli.work import work
from app.settings import SettingsError

cli = typer.Typer(
    cls=Root,
    help="Durable queues and schedules over plain HTTP, on nothing but Postgres.",
    epilog="--url, --key and --json may stand before the command, too.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
cli.add_typer(keys, name="keys")
cli.command()(work)
cli.add_typer(tasks, name="tasks")
cli.add_typer(limits, name="limits")
cli.add_typer(schedules, name="schedules")
cli.add_typer(sources, name="sources")
cli.add_typer(batches, name="batches")
cli.add_typer(handlers, name="handlers")
cli.add_typer(actions, name="actions")


def run() -> None:
    """The entry point. What the user can fix is reported in a sentence, the rest with a traceback."""
    try:
        cli()
    except SettingsError as error:
        for line in error.lines:
            say(line)
        sys.exit(USAGE)
    except Failure as failure:
        from app.cli.screen import plain

        for line in failure.text.split("\n"):
            say(plain(line))
        sys.exit(failure.code)
    except Exception as error:
        said = _plainly(error)
        if said is None:
            raise
        say(said)
        sys.exit(UNREACHABLE if _is_unreachable(error) else REFUSED)


@cli.command()
def up(
    role: Annotated[Literal["all", "api", "engine"] | None, typer.Option(help="What this replica does.")] = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on; 0 takes a free one.")] = None,
) -> None:
    """Serve the API and run the engine until SIGTERM or Ctrl-C."""
    settings = settings_of(role=role, host=host, port=port)
    from app.main import serve

    raise typer.Exit(wait_for(serve(settings)))


@cli.command()
def migrate() -> None:
    """Migrate the database to this version's schema, then exit."""
    settings = settings_of()
    from app.main import migrate
    from app.telemetry import logs

    logs.configure(settings.log_level)
    wait_for(migrate(settings))


@cli.command()
def config(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show every setting, its value and where it comes from. Secrets are hidden."""
    knobs = settings_of().describe()
    if as_json:
        shown = {knob.variable: {"value": knob.value, "source": knob.source} for knob in knobs}
        print(json.dumps(shown, indent=2))
        return
    _print(("setting", "value", "source"), [(knob.variable, knob.shown, knob.source) for knob in knobs])


@cli.command()
def listen(
    port: Annotated[int, typer.Argument(min=0, max=65_535, help="The port to listen on; 0 takes a free one.")],
    fail: Annotated[int, typer.Option(min=0, help="Answer 500 to the first N deliveries of each task.")] = 0,
    secret: Annotated[
        list[str] | None, typer.Option(help="The handler's signing secret, whsec_…; can be repeated.")
    ] = None,
    delay_seconds: Annotated[float, typer.Option("--delay", min=0, help="Seconds to wait before each response.")] = 0.0,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
) -> None:
    """Run a webhook handler that verifies, prints and answers every delivery. Useful for trying things out."""
    from app.cli.listen import Listener, serve
    from app.delivery.webhook.signing import parse_secret

    for given in secret or []:
        try:
            parse_secret(given)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--secret") from None
    raise typer.Exit(wait_for(serve(Listener(tuple(secret or ()), fail, delay_seconds), host, port)))


@cli.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version

    print(version("sluice-queue"))


def _version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@cli.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")
    ] = False,
) -> None:
    """Durable queues and schedules over plain HTTP, on nothing but Postgres."""


for command in (
    *(status.status, queues.queues, queues.pause, queues.resume, queues.purge, queues.redrive),
    limit.limit,
    roles.grant,
    roles.grants,
    roles.revoke,
    audit.audit,
    why.why,
    errors,
):
    cli.command()(command)
cli.command()(definitions.plan)
cli.command()(definitions.apply)
cli.command()(mcp)


def _plainly(error: Exception) -> str | None:
    """The message for a failure that is not a bug in the program; None for a bug."""
    from app.domain.connections import NoRoom
    from app.domain.errors import Refusal
    from app.embedded.directory import EmbeddedError
    from app.store.failures import Unavailable
    from app.store.migrations import SchemaMismatch

    if isinstance(error, Unavailable):
        return f"The database cannot be reached: {error}"
    if isinstance(error, Refusal):
        faults = [f"{fault.pointer.removeprefix('/')} {fault.detail}".strip() for fault in error.errors]
        # the detail of an invalid request repeats the first of them
        return "\n".join(faults if faults and error.code == "invalid" else [error.detail, *faults])
    if isinstance(error, EmbeddedError | SchemaMismatch | NoRoom):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
        where = f"on {error.filename}" if error.filename else "there"
        return f"Cannot listen {where} ({error.strerror}). Choose another --host or --port, or another SLUICE_SQS_PORT."
    return None


def _is_unreachable(error: Exception) -> bool:
    from app.store.failures import Unavailable

    return isinstance(error, Unavailable)


def _print(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    from app.cli.screen import Listing, console

    console().print(Listing(headings, rows))


if __name__ == "__main__":
    run()
