"""Tasks of a shop's orders for Celery, whose broker is the SQS port of Sluice."""

import os

from celery import Celery

app = Celery(
    "orders_celery",
    broker=os.environ.get("BROKER_URL", "sqs://anybody:anything@localhost:9324"),
    backend=os.environ.get("RESULT_URL", "file:///tmp"),
)
app.conf.update(
    broker_transport_options={"region": "eu-central-1", "is_secure": False, "visibility_timeout": 60},
    broker_connection_retry_on_startup=True,
    task_default_queue="orders",
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,  # SQS has no broadcasts
)


@app.task
def total(prices: list[int]) -> int:
    return sum(prices)


@app.task
def remind(order: int) -> str:
    return f"reminded of order {order}"


@app.task(bind=True, max_retries=3)
def charge(self, order: int) -> str:
    """Stands in for a bank that does not answer the first time."""
    if self.request.retries == 0:
        raise self.retry(countdown=1)
    return f"charged order {order} at attempt {self.request.retries + 1}"
