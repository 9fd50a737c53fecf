"""The command `sluice work`; what it does is in worker.py."""

from typing import Annotated

import typer

from app.cli.options import Key, Queue, Url
from app.settings import CLIENT_URL


def work(
    queue: Queue,
    line: Annotated[str, typer.Option("--exec", metavar="CMD", help="A shell command, given each payload on stdin.")],
    concurrency: Annotated[int, typer.Option(min=1, max=1000, help="How many commands run at a time.")] = 1,
    lease_seconds: Annotated[
        float,
        typer.Option(min=1, max=43_200, help="How soon a worker that went silent is noticed; renewed each third."),
    ] = 30.0,
    memory_mb: Annotated[
        int | None, typer.Option(min=16, help="How much memory each process of a command may have (RLIMIT_AS).")
    ] = None,
    url: Url = CLIENT_URL,
    key: Key = None,
) -> None:
    """Pull tasks and run a command for each: exit 0 completes (stdout is the result), 75 retries, others fail for good."""
    import uvloop

    from app.cli.worker import Worker, client_for

    async def run() -> int:
        async with client_for(url, key, concurrency) as client:
            return await Worker(client, queue, line, concurrency, lease_seconds, memory_mb).run()

    raise typer.Exit(uvloop.run(run()))
