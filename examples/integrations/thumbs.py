"""A worker that pulls its tasks, makes thumbnails, and reports how it went."""

import asyncio

from sluice_client import Sluice

sluice = Sluice()


@sluice.task(queue="thumbs")
def make_thumb(image: str, width: int) -> dict[str, str]:
    return {"thumb": f"{image}@{width}"}


if __name__ == "__main__":
    asyncio.run(sluice.worker(queues=["thumbs"]).run())
