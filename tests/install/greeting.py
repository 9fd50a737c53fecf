"""What a new user writes first: a typed task, dispatched and run by a worker. Given to every Python as a program."""

import asyncio

from sluice_client import Sluice

sluice = Sluice()


@sluice.task(queue="greetings", tries=3)
async def greet(name: str, times: int = 1) -> str:
    return " ".join([f"Hello, {name}!"] * times)


async def main() -> None:
    await sluice.queues.put("greetings")
    working = asyncio.create_task(sluice.worker(queues=["greetings"]).run())
    task = await greet.dispatch("Ada", times=2)
    print(await task.wait())
    working.cancel()
    await asyncio.wait([working])
    await sluice.aclose()


if __name__ == "__main__":
    asyncio.run(main())
