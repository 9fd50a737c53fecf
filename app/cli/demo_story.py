"""What the demo does, step by step, and what it checks. Each step returns a row of the table."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx2

from app.cli.demo_handler import SLOW_SECONDS
from app.cli.demo_processes import LEASE_SECONDS, Child, DemoFailed, until

REAP_SECONDS = 1.0
BUSY_SECONDS = 3.0
"""How much longer than promised a busy machine may take before the demo fails."""
DELAY_SECONDS = 2.0
SHARED_TASKS = 20

Task = dict[str, Any]


@dataclass(frozen=True)
class Row:
    step: str
    task: str
    outcome: str
    attempts: int
    seen: str


@dataclass
class Replica:
    child: Child
    name: str
    """As tasks and attempts show it."""
    http: httpx2.Client

    def call(self, method: str, path: str, body: object = None, *, expect: tuple[int, ...] = (200, 201)) -> Any:
        answer = self.http.request(method, path, json=body)
        if answer.status_code not in expect:
            raise DemoFailed(f"{method} {path} answered {answer.status_code}: {answer.text}")
        return answer.json()

    def enqueue(self, kind: str, **options: Any) -> Task:
        body = {"payload": {"demo": kind}, "type": kind, **options}
        return dict(self.call("POST", "/queues/demo/tasks", body, expect=(201,)))

    def task(self, task_id: str) -> Task:
        return dict(self.call("GET", f"/tasks/{task_id}"))

    def attempts(self, task_id: str) -> list[Task]:
        """Oldest first."""
        return list(reversed(self.call("GET", f"/tasks/{task_id}/attempts")["items"]))

    def ended(self, task_id: str, state: str, seconds: float = 30.0) -> Task:
        def look() -> Task | None:
            task = self.task(task_id)
            return None if task["ended_at"] is None else task

        task = until(f"task {task_id} ends", look, seconds)
        _promised(task["state"] == state, f"task {task_id} ended {task['state']}, not {state}: {task['last_error']}")
        return task


def define(replica: Replica, handler_url: str, secret: str) -> None:
    replica.call("PUT", "/handlers/demo", {"url": handler_url, "secret": secret})
    retry = {"max_attempts": 3, "backoff": {"kind": "fixed", "seconds": 0.5}}
    replica.call("PUT", "/queues/demo", {"handler": "demo", "retry": retry})


def delivery(replica: Replica) -> Row:
    task = replica.enqueue("greet")
    ended = replica.ended(task["id"], "succeeded")
    _promised(ended["result"] == {"done": "greet"}, f"the result is {ended['result']}")
    took = _seconds(ended["created_at"], ended["ended_at"])
    return Row("delivery", task["id"], "succeeded", 1, f"signed, delivered and answered in {took * 1000:.0f} ms")


def retry(replica: Replica) -> Row:
    task = replica.enqueue("flaky")
    replica.ended(task["id"], "succeeded")
    first, second = replica.attempts(task["id"])
    _promised(
        (first["outcome"], first["status"], second["outcome"]) == ("failed", 500, "succeeded"),
        f"the attempts ended {first['outcome']}, {second['outcome']}",
    )
    waited = _seconds(first["ended_at"], second["started_at"])
    _promised(waited >= 0.5, f"the retry came after {waited:.2f} s, before its backoff")
    return Row("retry", task["id"], "succeeded", 2, f"500, retried after {waited:.1f} s, then 200")


def dead_letter(replica: Replica) -> Row:
    task = replica.enqueue("broken")
    ended = replica.ended(task["id"], "dead")
    attempts = replica.attempts(task["id"])
    _promised(ended["reason"] == "attempts_exhausted", f"it is dead with reason {ended['reason']}")
    _promised(len(attempts) == ended["max_attempts"], f"it had {len(attempts)} attempts")
    listed = replica.call("GET", "/tasks?queue=demo&state=dead")["items"]
    _promised([item["id"] for item in listed] == [task["id"]], "the list of dead tasks does not contain it")
    return Row("dead letter", task["id"], "dead", len(attempts), f"{ended['reason']}, every attempt on record")


def delayed(replica: Replica) -> Row:
    task = replica.enqueue("later", delay_seconds=DELAY_SECONDS)
    _promised(task["state"] == "scheduled", f"its first state is {task['state']}")
    ended = replica.ended(task["id"], "succeeded")
    waited = _seconds(ended["created_at"], ended["started_at"])
    _promised(waited >= DELAY_SECONDS, f"it started after {waited:.2f} s")
    seen = f"asked for {DELAY_SECONDS:g} s, started after {waited:.3f} s"
    return Row("delayed", task["id"], "succeeded", 1, seen)


def idempotent_replay(replica: Replica, handler: Child) -> Row:
    key = "order-42"
    task = replica.enqueue("charge", idempotency_key=key)
    replica.ended(task["id"], "succeeded")
    body = {"payload": {"demo": "charge"}, "type": "charge", "idempotency_key": key}
    again = replica.http.post("/queues/demo/tasks", json=body)
    replayed = again.headers.get("idempotent-replayed")
    _promised(
        (again.status_code, replayed, again.json().get("id")) == (200, "true", task["id"]),
        f"the second enqueue responded {again.status_code}: {again.text}",
    )
    other = replica.http.post("/queues/demo/tasks", json={**body, "payload": {"demo": "another"}})
    _promised(other.status_code == 422, f"another payload under the same key responded {other.status_code}")
    calls = handler.count(lambda line: line.get("task") == task["id"])
    _promised(calls == 1, f"the handler was called {calls} times")
    return Row(
        "replay", task["id"], "succeeded", 1, "enqueued twice, 200 with the same task; a different payload is rejected"
    )


def second_replica(first: Replica, second: Replica) -> Row:
    """Both replicas accept tasks, and both deliver."""
    tasks = [(first, second)[n % 2].enqueue("shared")["id"] for n in range(SHARED_TASKS)]
    by = [first.ended(task, "succeeded")["replica"] for task in tasks]
    counts = [by.count(replica.name) for replica in (first, second)]
    _promised(sum(counts) == SHARED_TASKS and all(counts), f"the two replicas delivered {counts[0]} and {counts[1]}")
    return Row(
        "2 replicas",
        f"{SHARED_TASKS} tasks",
        "succeeded",
        SHARED_TASKS,
        f"{counts[0]} by the first, {counts[1]} by the second",
    )


def client(replica: Replica, start: Callable[[str], Child]) -> Row:
    """A program of six lines, with the SDK: it dispatches a typed task, and is the worker that runs it."""
    replica.call("PUT", "/queues/greetings", {})
    start(str(replica.http.base_url))

    def look() -> Task | None:
        listed = replica.call("GET", "/tasks?queue=greetings")["items"]
        return listed[0] if listed else None

    task = until("the program dispatches its task", look, 30.0)
    ended = replica.ended(task["id"], "succeeded")
    _promised(ended["result"] == "Hello, Ada! Hello, Ada!", f"the result is {ended['result']}")
    _promised(ended["payload"] == {"name": "Ada", "times": 2}, f"the payload is {ended['payload']}")
    return Row("SDK", task["id"], "succeeded", ended["attempt"], f"a typed task returned {ended['result']!r}")


def crash(first: Replica, second: Replica, handler: Child) -> Iterator[str | Row]:
    """kill -9 of the second replica while the handler works for it; first yields what it will kill."""
    task_id = _held_by(second, handler)
    yield f"kill -9 {second.child.pid} while the handler works on {task_id}"
    second.child.kill()
    killed = time.time()
    allowed = LEASE_SECONDS + REAP_SECONDS + BUSY_SECONDS
    ended = first.ended(task_id, "succeeded", allowed + SLOW_SECONDS)
    lost, won = first.attempts(task_id)
    _promised(
        (lost["outcome"], lost["replica"]) == ("lease_expired", second.name),
        f"the killed replica's attempt ended {lost['outcome']}",
    )
    _promised((won["outcome"], won["replica"]) == ("succeeded", first.name), f"the next attempt: {won['outcome']}")
    waited = _instant(won["started_at"]) - killed
    _promised(
        waited <= allowed,
        f"it ran again after {waited:.1f} s; a lease and a reap are {LEASE_SECONDS + REAP_SECONDS:g} s",
    )
    _promised(ended["attempt"] == 2, f"it counts {ended['attempt']} attempts")
    yield Row("kill -9", task_id, "succeeded", 2, f"run again by the other replica {waited:.1f} s later")


def _held_by(replica: Replica, handler: Child) -> str:
    """A slow task that this replica is delivering. Replicas race for tasks, so this can take a few tries."""
    for _ in range(20):
        task_id = str(replica.enqueue("slow")["id"])
        until(f"task {task_id} reaches the handler", _called(handler, task_id), 10.0)
        task = replica.task(task_id)
        if task["state"] == "running" and task["replica"] == replica.name:
            return task_id
    raise DemoFailed("the second replica took none of 20 tasks")


def _called(handler: Child, task_id: str) -> Callable[[], object]:
    return lambda: handler.find(lambda line: line.get("task") == task_id)


def _promised(holds: bool, otherwise: str) -> None:
    if not holds:
        raise DemoFailed(otherwise)


def _instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _seconds(since: str, until_: str) -> float:
    return _instant(until_) - _instant(since)
