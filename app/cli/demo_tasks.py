"""The SDK in six lines, as an application writes them: `make demo` shows them, and runs them as a process of its own."""

import asyncio
import inspect
import textwrap

from sluice_client import Sluice


async def application() -> None:
    sluice = Sluice()

    @sluice.task(queue="greetings", tries=3)
    async def greet(name: str, times: int = 1) -> str:
        return " ".join([f"Hello, {name}!"] * times)

    await greet.dispatch("Ada", times=2)
    await sluice.worker(queues=["greetings"]).run()


def lines() -> list[str]:
    """Return the lines of the application, as they stand in this file."""
    body = inspect.getsource(application).partition("\n")[2]
    return [line for line in textwrap.dedent(body).splitlines() if line]


if __name__ == "__main__":
    asyncio.run(application())
