"""Send the tasks of an order to Celery, and print their results."""

from orders_celery import charge, remind, total

sent = [total.delay([3, 4, 5]), charge.delay(1), remind.apply_async((1,), countdown=2)]
for result in sent:
    print(result.get(timeout=60), flush=True)
