"""`sluice grant`, `grants` and `revoke`: which roles of the database may call sluice.enqueue. On the database itself."""

from typing import Annotated

import typer

from app.cli.process import quiet_settings, say, wait_for

HEADINGS = ("role", "tenant", "queues", "created", "")

Role = Annotated[str, typer.Argument(metavar="ROLE", help="A role of the database, as it is spelt in pg_roles.")]


def grant(
    role: Role,
    tenant: Annotated[str, typer.Option(help="The tenant it enqueues for.")],
    queue: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Confine it to these queues, such as 'billing-*'; can be repeated."),
    ] = None,
) -> None:
    """Let a role of the database enqueue with select sluice.enqueue(…), in its own transactions."""
    from app.main import grant

    made = wait_for(grant(quiet_settings(), role, tenant, queue))
    where = "every queue" if made.queues is None else "queues " + ", ".join(made.queues)
    say(f"Role {made.role} may enqueue on {where} of tenant {made.tenant}.")


def grants(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the roles of the database that may enqueue."""
    from msgspec import to_builtins

    from app.cli.screen import Listing, console, instant, say_json
    from app.domain.instants import format_instant
    from app.main import list_roles

    found = wait_for(list_roles(quiet_settings()))
    if as_json:
        say_json([to_builtins(one) for one in found])
    elif found:
        rows = (
            (
                one.role,
                one.tenant,
                ", ".join(one.queues or ()),
                instant(format_instant(one.created_at)),
                "" if one.exists else "no such role any longer",
            )
            for one in found
        )
        console().print(Listing(HEADINGS, rows))
    else:
        say("No role may enqueue yet. To let one: sluice grant ROLE --tenant NAME")


def revoke(role: Role) -> None:
    """Take back what `sluice grant` gave a role."""
    from app.main import revoke_role

    if not wait_for(revoke_role(quiet_settings(), role)):
        say(f"Role {role} may not enqueue. To list those that may: sluice grants")
        raise typer.Exit(1)
    say(f"Role {role} may no longer enqueue.")
