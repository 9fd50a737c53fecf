"""The service in memory: what an enqueue, a cancel, a batch and the end of an attempt do, on one clock and without a database.

It knows the queues, tasks, batches and leases that tests of tasks need, with the meanings of the real service; the contract tests
run against both. What it does not know raises NotImplementedError.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sluice_client.testing.bodies import Refused, TaskFields, not_supported
from sluice_client.testing.clock import Clock
from sluice_client.testing.records import Attempt, Batch, Completion, Json, Retry, Task, after

LEASE_SECONDS = 3600.0


@dataclass
class Queue:
    name: str
    definition: dict[str, Any] = field(default_factory=dict)

    @property
    def retry(self) -> Retry:
        return Retry().merged(self.definition.get("retry"))

    @property
    def idempotency_seconds(self) -> float:
        return float(self.definition.get("idempotency_seconds", 86400))


@dataclass(frozen=True)
class Receipt:
    """What an idempotency key has stored: the task, what was sent, and until when a repeat finds it."""

    task: Task
    fingerprint: str
    until: datetime


@dataclass(frozen=True)
class Stored:
    """What an enqueue has done: `status` is 201 for a new task, else 200 with the one that was there."""

    status: int
    task: Task
    replayed: bool = False


class MemorySluice:
    """A Sluice of one tenant in memory."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.queues: dict[str, Queue] = {}
        self.tasks: dict[str, Task] = {}
        self._unfinished: dict[str, Task] = {}
        """Of these tasks, those that have not ended: so that many that have do not slow down the others."""
        self.batches: dict[str, Batch] = {}
        self._receipts: dict[tuple[str, str], Receipt] = {}
        self._followups: dict[tuple[str, str, str], Task] = {}

    # definitions

    def queue(self, name: str) -> Queue:
        """Return a queue. Here, one exists as soon as it is named: tests need no definitions."""
        return self.queues.setdefault(name, Queue(name))

    # enqueue

    def enqueue(self, queue: str, body: Mapping[str, Json], key: str | None = None, **links: Any) -> Stored:
        """Enqueue one task, with its idempotency key in the body or as `key`. Raises Refused."""
        fields = TaskFields.read(body, key, self.clock.now())
        repeated = self._repeated(queue, fields)
        if repeated is not None:
            return repeated
        held = self._holder(queue, fields.unique_key)
        if held is not None:
            self._met(held, fields)
            return Stored(200, held)
        task = self._stored(queue, fields, **links)
        if fields.idempotency_key is not None:
            until = after(self.clock.now(), self.queue(queue).idempotency_seconds)
            self._receipts[queue, fields.idempotency_key] = Receipt(task, fields.fingerprint, until)
        return Stored(201, task)

    def _stored(self, queue: str, fields: TaskFields, **links: Any) -> Task:
        now = self.clock.now()
        task = Task(
            id=str(uuid.uuid4()),
            number=len(self.tasks),
            queue=queue,
            payload=fields.payload,
            fields=fields.carried,
            created_at=now,
            run_at=fields.run_at,
            expires_at=fields.expires_at,
            retry=self.queue(queue).retry.merged(fields.carried.get("retry")),
            **links,
        )
        self.tasks[task.id] = self._unfinished[task.id] = task
        if task.batch is not None:
            self.batches[task.batch].tasks.append(task)
        return task

    def _repeated(self, queue: str, fields: TaskFields) -> Stored | None:
        receipt = None if fields.idempotency_key is None else self._receipts.get((queue, fields.idempotency_key))
        if receipt is None or receipt.until <= self.clock.now():
            return None
        if receipt.fingerprint != fields.fingerprint:
            raise Refused(
                422,
                "idempotency_mismatch",
                "this idempotency key was used for a task that differs in payload or options",
            )
        return Stored(200, receipt.task, replayed=True)

    def _holder(self, queue: str, unique_key: str | None) -> Task | None:
        if unique_key is None:
            return None
        self.expire()
        held = (
            task
            for task in self._unfinished.values()
            if task.queue == queue and task.fields.get("unique_key") == unique_key
        )
        return next(held, None)

    def _met(self, held: Task, fields: TaskFields) -> None:
        """Do to the task that holds the unique key what the newcomer asks for."""
        wanted = fields.carried.get("on_duplicate") or "keep"
        if wanted == "keep" or held.state == "running":
            return
        kept = ("idempotency_key",)
        held.payload = fields.payload
        held.fields = {**fields.carried, **{name: held.fields.get(name) for name in kept}}
        if wanted == "postpone":
            held.run_at = max(held.run_at, fields.run_at)
        else:
            held.run_at, held.expires_at = fields.run_at, fields.expires_at
        held.retry = self.queue(held.queue).retry.merged(fields.carried.get("retry"))

    # what callers do to a task

    def find(self, task_id: str) -> Task:
        self.expire()
        task = self.tasks.get(task_id)
        if task is None:
            raise Refused(404, "task_not_found", f"there is no task {task_id}")
        return task

    def cancel(self, task_id: str) -> Task:
        task = self.find(task_id)
        if task.state in ("succeeded", "dead"):
            raise Refused(409, "task_ended", f"it is {task.state} already")
        if task.unfinished:
            if task.state == "running":
                task.attempts[-1].ended_at, task.attempts[-1].outcome = self.clock.now(), "cancelled"
                task.attempts[-1].counted = False
            self._end(task, "cancelled", "requested")
        return task

    def retry(self, task_id: str) -> Task:
        task = self.find(task_id)
        if task.state == "succeeded":
            raise Refused(409, "task_ended", "it has succeeded: enqueue a new task to run it again")
        if task.state == "running":
            raise Refused(409, "task_not_editable", "it is running")
        if not task.unfinished:
            held = self._holder(task.queue, task.fields.get("unique_key"))
            if held is not None:
                raise Refused(409, "task_not_editable", f"task {held.id} has its unique_key")
            task.state, task.reason, task.ended_at, task.attempt, task.last_error = "ready", None, None, 0, None
            self._unfinished[task.id] = task
            if task.expires_at is not None and task.expires_at <= self.clock.now():
                task.expires_at = None
        task.run_at = min(task.run_at, self.clock.now())
        return task

    # batches

    def create_batch(self, body: Mapping[str, Json]) -> tuple[Batch, list[Stored | Refused]]:
        """Create a batch with its first tasks, if any."""
        not_supported(body, {"queue", "tasks", "on_complete", "sealed"}, "a batch")
        batch = Batch(str(uuid.uuid4()), body["queue"], sealed=False, created_at=self.clock.now())
        self.batches[batch.id] = batch
        if body.get("on_complete") is not None:
            self._name_completion(batch, body["on_complete"])
        results = self.add_to_batch(batch.id, body.get("tasks") or ())
        if body.get("sealed", True):
            self.seal_batch(batch.id)
        return batch, results

    def find_batch(self, batch_id: str) -> Batch:
        self.expire()
        if batch_id not in self.batches:
            raise Refused(404, "batch_not_found", f"there is no batch {batch_id}")
        return self.batches[batch_id]

    def add_to_batch(self, batch_id: str, tasks: Sequence[Json]) -> list[Stored | Refused]:
        batch = self.find_batch(batch_id)
        if batch.sealed:
            raise Refused(409, "batch_sealed", "it is sealed: nothing can be added")
        return self.enqueue_each(batch.queue, tasks, batch=batch_id)

    def enqueue_each(self, queue: str, tasks: Sequence[Json], **links: Any) -> list[Stored | Refused]:
        """Enqueue each task; one that is refused sinks no other."""
        results: list[Stored | Refused] = []
        for place, task in enumerate(tasks):
            try:
                results.append(self.enqueue(queue, task, **links))
            except Refused as refused:
                results.append(refused.below(f"/tasks/{place}"))
        return results

    def seal_batch(self, batch_id: str) -> Batch:
        batch = self.find_batch(batch_id)
        batch.sealed = True
        self._complete_batch(batch)
        return batch

    def cancel_batch(self, batch_id: str) -> Batch:
        batch = self.find_batch(batch_id)
        batch.sealed, batch.cancelled_at = True, batch.cancelled_at or self.clock.now()
        for task in batch.tasks:
            if task.unfinished:
                self.cancel(task.id)
        self._complete_batch(batch)
        return batch

    def _name_completion(self, batch: Batch, named: Mapping[str, Json]) -> None:
        """Note what is to follow the batch; the same one again adds nothing."""
        not_supported(named, {"queue", "payload", "type"}, "an on_complete")
        then = Completion(named["queue"], json.dumps(named["payload"]), named.get("type"))
        if not any((one.queue, one.payload) == (then.queue, then.payload) for one in batch.on_complete):
            batch.on_complete.append(then)

    def _complete_batch(self, batch: Batch) -> None:
        if not batch.over:
            return
        batch.completed_at = batch.completed_at or self.clock.now()
        for then in batch.on_complete:
            if then.task is None:
                body = {"payload": json.loads(then.payload), "type": then.type}
                then.task = self.enqueue(then.queue, body, completes=batch.id).task.id

    # leases

    def next_due(self) -> Task | None:
        """Return the task that would start now, if one could."""
        self.expire()
        now = self.clock.now()
        due = (task for task in self._unfinished.values() if task.state_at(now) == "ready")
        return min(due, key=Task.turn, default=None)

    def lease(self, task: Task) -> str:
        """Start an attempt of a task that is due; return the token of its lease."""
        now = self.clock.now()
        task.state, task.started_at, task.attempt = "running", now, task.attempt + 1
        task.attempts.append(Attempt(len(task.attempts) + 1, now))
        task.lease = uuid.uuid4().hex, after(now, LEASE_SECONDS)
        return task.lease[0]

    def renew(self, task_id: str, token: str, seconds: float, **progress: Json) -> Task:
        task = self._held(task_id, token)
        task.lease = token, after(self.clock.now(), seconds)
        if "progress" in progress:
            task.progress = progress["progress"]
        return task

    def complete(self, task_id: str, token: str, page: Mapping[str, Json]) -> Task:
        """End an attempt well, and enqueue what follows: all of it, or nothing if it raises Refused."""
        known = {"result", "result_encoding", "result_truncated", "tasks", "next", "on_complete"}
        not_supported(page, known, "the answer of a task")
        task = self._held(task_id, token)
        tasks = page.get("tasks") or ()
        for place, named in enumerate(tasks):
            TaskFields.read_followup(named, self.clock.now(), f"/tasks/{place}")
        if tasks or page.get("next") is not None or page.get("on_complete") is not None:
            self._follow(task, page)
        task.result, task.result_encoding = page.get("result"), page.get("result_encoding")
        task.result_truncated = bool(page.get("result_truncated"))
        self._ended_attempt(task, "succeeded", None)
        self._end(task, "succeeded")
        return task

    def _follow(self, task: Task, page: Mapping[str, Json]) -> None:
        root = task.root or task.id
        if task.batch is None:
            # what a task adds forms a batch of its own, under the id of the root
            self.batches[root] = Batch(root, task.queue, sealed=True, created_at=self.clock.now(), tasks=[task])
            task.batch = root
        batch = self.batches[task.batch]
        links = {"batch": batch.id, "root": root, "parent": task.id}
        for named in page.get("tasks") or ():
            queue = named["queue"]
            key = root, queue, named["idempotency_key"]
            if key not in self._followups:
                body = {name: value for name, value in named.items() if name not in ("queue", "idempotency_key")}
                stored = self.enqueue(queue, body, **links)
                stored.task.fields = {**stored.task.fields, "idempotency_key": named["idempotency_key"]}
                self._followups[key] = stored.task
        if page.get("next") is not None:
            dropped = ("idempotency_key", "unique_key", "on_duplicate", "run_at", "delay_seconds")
            body = {name: value for name, value in task.fields.items() if name not in dropped and value is not None}
            self.enqueue(task.queue, {**body, "payload": json.loads(task.payload)}, cursor=page["next"], **links)
        if page.get("on_complete") is not None:
            self._name_completion(batch, page["on_complete"])

    def fail(self, task_id: str, token: str, error: str, *, retryable: bool = True, retry_after: float = 0) -> Task:
        """End an attempt badly: the task is tried again after its backoff, or is dead."""
        task = self._held(task_id, token)
        now = self.clock.now()
        self._ended_attempt(task, "failed", error)
        task.last_error = error
        if not retryable:
            self._end(task, "dead", "stopped_by_worker")
        elif task.attempt >= task.retry.max_attempts:
            self._end(task, "dead", "attempts_exhausted")
        else:
            wait = max(task.retry.delay_seconds(task.attempt), min(retry_after, task.retry.retry_after_max_seconds))
            task.state, task.lease, task.run_at = "ready", None, after(now, wait)
            self.expire()
        return task

    def release(self, task_id: str, token: str) -> Task:
        task = self._held(task_id, token)
        self._ended_attempt(task, "released", None)
        task.attempts[-1].counted = False
        task.state, task.lease, task.attempt = "ready", None, task.attempt - 1
        return task

    def _held(self, task_id: str, token: str) -> Task:
        task = self.find(task_id)
        if task.lease is None or task.lease[0] != token:
            code = "task_cancelled" if task.state == "cancelled" else "lease_lost"
            raise Refused(409, code, "this lease does not hold the task any more")
        return task

    def _ended_attempt(self, task: Task, outcome: str, error: str | None) -> None:
        attempt = task.attempts[-1]
        attempt.ended_at, attempt.outcome, attempt.error = self.clock.now(), outcome, error

    def _end(self, task: Task, state: str, reason: str | None = None) -> None:
        task.end(state, self.clock.now(), reason)
        self._unfinished.pop(task.id, None)
        if task.batch is not None:
            self._complete_batch(self.batches[task.batch])

    def expire(self) -> None:
        """End what waited beyond its `expires_at`."""
        now = self.clock.now()
        for task in list(self._unfinished.values()):
            if task.state == "ready" and task.expires_at is not None and task.expires_at <= now:
                self._end(task, "dead", "expired")
