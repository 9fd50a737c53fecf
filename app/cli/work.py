"""The command line of `sluice work`; worker.py does the work."""

from typing import Annotated

import typer

from app.cli.options import Key, Queue, Url
from app.domain.outcomes import MAX_LEASE_SECONDS
from app.settings import CLIENT_URL


def work(
    queue: Queue,
    line: Annotated[
        str, typer.Option("--exec", metavar="CMD", help="The shell command to run; it gets the payload on stdin.")
    ],
    concurrency: Annotated[int, typer.Option(min=1, max=1000, help="How many commands run at once.")] = 1,
    lease_seconds: Annotated[
        float,
        typer.Option(
            min=1,
            max=MAX_LEASE_SECONDS,
            help="How soon Sluice notices that this worker is gone; renewed after each third.",
        ),
    ] = 30.0,
    memory_mb: Annotated[
        int | None, typer.Option(min=16, help="Memory limit for each process of a command (RLIMIT_AS).")
    ] = None,
    url: Url = CLIENT_URL,
    key: Key = None,
) -> None:
    """Pull tasks and run a command for each.

    Exit status 0 completes the task, with stdout as its result. 75 retries it, and so do 126 and 127,
    which mean that the command cannot be run. Any other fails it for good.
    """
    import uvloop

    from app.cli.client import TO_CORRECT
    from app.cli.failures import USAGE, Failure
    from app.cli.worker import Worker
    from sluice_client import Transport

    async def run() -> int:
        try:
            transport = Transport(url, key)
        except ValueError as error:
            raise Failure(f"{error}\nNext: {TO_CORRECT}.", USAGE) from None
        async with transport:
            return await Worker(transport, queue, line, concurrency, lease_seconds, memory_mb).run()

    raise typer.Exit(uvloop.run(run()))
