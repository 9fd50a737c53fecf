"""`sluice mcp`: the API as tools for agents, over the Model Context Protocol."""

from typing import Annotated, Literal

import typer

from app.cli.failures import USAGE, Failure
from app.cli.options import Key, Url
from app.cli.process import wait_for
from app.settings import CLIENT_URL


def mcp(
    allow: Annotated[
        Literal["use", "manage"] | None,
        typer.Option(
            "--allow",
            help="Also offer tools that change something. use: enqueue, retry, cancel, redrive. manage: also pause, resume.",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65_535,
            help="Serve streamable HTTP on this port of the loopback interface; 0 takes a free one. Without it: stdio.",
        ),
    ] = None,
    url: Url = CLIENT_URL,
    key: Key = None,
) -> None:
    """Offer Sluice to agents as tools, over the Model Context Protocol. Without --allow they only read."""
    try:
        from app.cli.mcp_server import serve_http, serve_stdio
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise Failure("This command needs an extra: pip install 'sluice-queue[mcp]'", USAGE) from None
    if port is None:
        wait_for(serve_stdio(url, key, allow))
    else:
        raise typer.Exit(wait_for(serve_http(url, allow, port)))
