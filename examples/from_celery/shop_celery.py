"""A shop's background work, with Celery."""

import os

from celery import Celery, chord
from celery.schedules import crontab

app = Celery(
    "shop_celery",
    broker=os.environ.get("BROKER_URL", "redis://localhost"),
    backend=os.environ.get("RESULT_URL", "redis://localhost"),
)
app.conf.task_acks_late = True
app.conf.task_routes = {"shop_celery.make_thumb": {"queue": "images"}}
app.conf.beat_schedule = {"nightly": {"task": "shop_celery.close_day", "schedule": crontab(hour=2, minute=0)}}
outbox: list[str] = []


def send(email: str, text: str) -> None:
    """Stands in for a mail server that does not answer the first time."""
    outbox.append(email)
    if outbox.count(email) == 1:
        raise ConnectionError("the mail server does not answer")


@app.task(bind=True, max_retries=4)
def send_receipt(self, order_id: int, email: str) -> str:
    try:
        send(email, f"receipt of order {order_id}")
    except ConnectionError as error:
        raise self.retry(exc=error, countdown=2**self.request.retries) from error
    return f"receipt of order {order_id}"


@app.task(rate_limit="10/s")
def make_thumb(image: str, width: int) -> str:
    return f"{image}@{width}"


@app.task
def publish(thumbs: list[str], image: str) -> list[str]:
    return sorted(thumbs)


@app.task
def close_day() -> str:
    return "closed"


def checkout(order_id: int, email: str):
    return send_receipt.apply_async((order_id, email), expires=86400)


def add_picture(image: str):
    return chord(make_thumb.s(image, width) for width in (64, 256, 1024))(publish.s(image))
