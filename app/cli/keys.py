"""`sluice keys`: create, list, rotate, revoke, rewrap. On the database itself, because the first key comes before any request."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from app.cli.process import quiet_settings, say, wait_for
from app.domain.instants import parse_instant
from app.domain.keys import DEFAULT_OVERLAP_SECONDS, MAX_OVERLAP_SECONDS, KeyIssued, KeyKind, KeyView, Scope

keys = typer.Typer(
    help="Create, list, rotate and revoke API keys; renew the encryption of secrets.", no_args_is_help=True
)

HEADINGS = ("id", "kind", "tenant", "scope", "last used", "expires", "queues", "")
UNITS = {"d": 86_400, "h": 3_600, "min": 60}
_DURATION = re.compile(r"([1-9][0-9]{0,5})(d|h|min)", re.ASCII)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="The key's id, from `sluice keys list`.")]


def _expires(text: str | None) -> str | None:
    if text is None or _DURATION.fullmatch(text) or parse_instant(text) is not None:
        return text
    raise typer.BadParameter(f"{text!r} is neither an instant such as 2027-01-31T00:00:00Z nor a duration such as 90d")


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    match = _DURATION.fullmatch(text)
    if match is None:
        return parse_instant(text)
    return datetime.now(UTC) + timedelta(seconds=int(match[1]) * UNITS[match[2]])


@keys.command("create")
def create(
    tenant: Annotated[str, typer.Option(help="The tenant the key belongs to; created if it does not exist.")],
    kind: Annotated[
        KeyKind, typer.Option(help="A bearer token for the API, or an access key that SQS clients sign with.")
    ] = "bearer",
    scope: Annotated[Scope, typer.Option(help="What the key may do.")] = "manage",
    queue: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Confine the key to these queues, such as 'billing-*'; can be repeated."),
    ] = None,
    payloads: Annotated[
        bool, typer.Option("--payloads/--no-payloads", help="Whether the key may read the content of tasks.")
    ] = True,
    expires: Annotated[
        str | None,
        typer.Option(metavar="WHEN", callback=_expires, help="An instant, or a duration such as 90d, 12h or 30min."),
    ] = None,
    description: Annotated[str | None, typer.Option(help="What the key is for.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create an API key and print it. It cannot be shown again."""
    from app.domain.bodies import faults
    from app.domain.errors import invalid
    from app.domain.keys import Grant, KeyBody
    from app.main import create_key

    if found := faults({"scope": scope, "queues": queue, "description": description}, KeyBody):
        raise invalid(found)
    grant = Grant(scope, None if queue is None else tuple(queue), payloads, _instant(expires), description, kind)
    _show(wait_for(create_key(quiet_settings(), tenant, grant)), as_json=as_json)


@keys.command("rotate")
def rotate(
    key_id: KeyId,
    overlap_seconds: Annotated[
        float,
        typer.Option(
            "--overlap", metavar="SECONDS", min=0, max=MAX_OVERLAP_SECONDS, help="How long the old one still works."
        ),
    ] = DEFAULT_OVERLAP_SECONDS,
    as_json: AsJson = False,
) -> None:
    """Give an API key a new secret and print it. The id, and what the key may do, stay the same."""
    from app.main import rotate_key

    _show(wait_for(rotate_key(quiet_settings(), key_id, overlap_seconds)), as_json=as_json)


def _show(key: KeyIssued, *, as_json: bool) -> None:
    """Print the key alone, for pipes; what is said about it goes to stderr."""
    from msgspec import UNSET, structs

    from app.cli.screen import say_json

    if as_json:
        say_json({name: value for name, value in structs.asdict(key).items() if value is not UNSET})
        return
    if key.kind == "aws":
        print(f"AWS_ACCESS_KEY_ID={key.access_key_id}\nAWS_SECRET_ACCESS_KEY={key.secret_access_key}")
        say(
            f"This access key for tenant {key.tenant}, scope {key.scope}, is shown only once. SQS clients sign with it."
        )
        return
    print(key.token)
    say(
        f"This key for tenant {key.tenant}, scope {key.scope}, is shown only once. Send it as: Authorization: Bearer slk_…"
    )


@keys.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List API keys, without their secrets."""
    from msgspec import structs

    from app.cli.screen import Listing, console, say_json
    from app.main import list_keys

    found = wait_for(list_keys(quiet_settings()))
    if as_json:
        say_json([structs.asdict(key) for key in found])
    elif found:
        console().print(Listing(HEADINGS, map(_row, found)))
    else:
        say("There are no keys yet. To create one: sluice keys create --tenant NAME")


def _row(key: KeyView) -> tuple[object, ...]:
    from app.cli.screen import instant

    expired = key.expires_at is not None and (parse_instant(key.expires_at) or datetime.max) <= datetime.now(UTC)
    state = "revoked" if key.revoked_at else "expired" if expired else "" if key.payloads else "no payloads"
    queues = "" if key.queues is None else ", ".join(key.queues)
    return key.id, key.kind, key.tenant, key.scope, instant(key.last_used_at), instant(key.expires_at), queues, state


@keys.command("revoke")
def revoke(key_id: KeyId) -> None:
    """Revoke an API key. Requests with it fail from then on."""
    from app.main import revoke_key

    if not wait_for(revoke_key(quiet_settings(), key_id)):
        say(f"There is no active key {key_id}. To list keys: sluice keys list")
        raise typer.Exit(1)
    say(f"Key {key_id} is revoked.")


@keys.command()
def rewrap() -> None:
    """Encrypt the data key in the database with the first key of SLUICE_ENCRYPTION_KEY."""
    from app.main import rewrap

    print(wait_for(rewrap(quiet_settings())))
    say("The data key is encrypted with the key of this fingerprint. Replicas no longer need any other.")
