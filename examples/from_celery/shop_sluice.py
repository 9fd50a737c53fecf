"""The same, with Sluice."""

from sluice_client import Context, Sluice, TaskRef, exponential

sluice = Sluice()
outbox: list[str] = []


def send(email: str, text: str) -> None:
    """Stands in for a mail server that does not answer the first time."""
    outbox.append(email)
    if outbox.count(email) == 1:
        raise ConnectionError("the mail server does not answer")


@sluice.task(queue="mail", tries=5, backoff=exponential(1, 600), ttl="1d")
def send_receipt(order_id: int, email: str) -> str:
    send(email, f"receipt of order {order_id}")  # what it raises is what the task is retried for
    return f"receipt of order {order_id}"


@sluice.task(queue="images")
def make_thumb(image: str, width: int) -> str:
    return f"{image}@{width}"


@sluice.task(queue="pages")
async def publish(image: str, *, ctx: Context) -> list[str]:
    tasks = sluice.tasks.list(batch=ctx.batch, state="succeeded")
    return sorted([task["result"] async for task in tasks])


@sluice.task(queue="pages")
async def close_day() -> str:
    return "closed"


sluice.schedule("nightly", close_day.call(), cron="0 2 * * *")


async def checkout(order_id: int, email: str) -> TaskRef[str]:
    return await send_receipt.dispatch(order_id, email)


async def add_picture(image: str) -> str | None:
    async with sluice.batch(on_complete=publish.call(image)) as batch:
        await batch.add_many([make_thumb.call(image, width) for width in (64, 256, 1024)])
    return batch.id
