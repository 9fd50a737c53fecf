"""python -m bench.peers.programs.celery client|worker REDIS_SOCKET HANDLER_URL

The worker starts idle; `work` makes it consume the queue, `rest` makes it stop consuming, by Celery's own remote control.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from celery import Celery
from celery.signals import worker_ready

from bench.peers.programs.peer import CONCURRENCY, PAYLOAD, deliver_sync, sync_client
from bench.processes import say

ROLE, STORE, URL = sys.argv[1:]
OTHER_QUEUE = "enqueue"

app = Celery("bench", broker=f"redis+socket://{STORE}")
app.conf.update(
    task_ignore_result=True,
    # As the other peers do: a job that a dying worker held is delivered again.
    task_acks_late=True,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    broker_connection_retry_on_startup=True,
    broker_pool_limit=CONCURRENCY,
    broker_transport_options={"visibility_timeout": 3600},
)
http = sync_client()


def job(payload: dict[str, Any]) -> None:
    deliver_sync(http, URL, payload)


task = app.task(name="deliver", ignore_result=True)(job)


def fill(jobs: int) -> None:
    with app.producer_pool.acquire(block=True) as producer:
        for _ in range(jobs):
            task.apply_async((PAYLOAD,), queue="bench", producer=producer)


def enqueue(seconds: float) -> dict[str, Any]:
    counts = [0] * CONCURRENCY
    begun = time.perf_counter()

    def caller(number: int) -> None:
        while time.perf_counter() - begun < seconds:
            task.apply_async((PAYLOAD,), queue=OTHER_QUEUE)
            counts[number] += 1

    with ThreadPoolExecutor(CONCURRENCY) as threads:
        list(threads.map(caller, range(CONCURRENCY)))
    return {"enqueued": sum(counts), "seconds": time.perf_counter() - begun}


def serve() -> None:
    name = f"worker-{os.getpid()}@bench"

    def control(command: str) -> None:
        app.control.broadcast(command, arguments={"queue": "bench"}, destination=[name], reply=True, timeout=5, limit=1)

    actions: dict[str, Callable[..., dict[str, Any] | None]] = {
        "fill": fill,
        "enqueue": enqueue,
        "work": lambda: control("add_consumer"),
        "rest": lambda: control("cancel_consumer"),
    }
    say(event="ready")
    for line in sys.stdin:
        command = json.loads(line)
        did = command.pop("do")
        say(event=did, **(actions[did](**command) or {}))
    os._exit(0)


def main() -> None:
    if ROLE == "client":
        serve()
        return
    worker_ready.connect(lambda **_: threading.Thread(target=serve, daemon=True).start(), weak=False)
    worker = app.Worker(
        hostname=f"worker-{os.getpid()}@bench",
        pool="threads",
        concurrency=CONCURRENCY,
        queues=["idle"],
        loglevel="ERROR",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()


if __name__ == "__main__":
    main()
