"""Two replicas and the model side by side: whatever is done in whatever order, they agree."""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from datetime import datetime
from typing import Any, ClassVar, TypeVar
from uuid import uuid4

import httpx2
from hypothesis import event
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from standardwebhooks.webhooks import Webhook

from tests.properties.model import UNFINISHED, Lease, Model, Queue, Task
from tests.properties.world import ANSWERS, FATAL, HOUR, World
from tests.support import poll
from tests.wire.api import Api, fresh, good, problem

T = TypeVar("T")

SIDES = st.sampled_from([0, 1])
PICKS = st.integers(0, 40)
LIMITS = st.sampled_from([None, 1, 2, 3])
COUNTS = st.integers(1, 4)
MOSTLY = st.sampled_from([True, True, False])
HAPPENINGS = st.sampled_from(
    ["lease", "lease", "say", "say", "say", "cancel", "retry", "due", "lapse", "expire", "foreign"]
)
BODIES: dict[str, dict[str, Any] | None] = {
    "complete": {"result": 1},
    "fail": {"error": "no luck"},
    "stop": {"error": "no use", "retryable": False},
    "release": None,
    "renew": {"seconds": HOUR, "progress": 0.5},
}
VERBS = st.sampled_from(sorted(BODIES))
THINGS = st.tuples(SIDES, PICKS, HAPPENINGS, COUNTS, VERBS, MOSTLY)


def picked(items: Sequence[T], pick: int) -> T:
    return items[pick % len(items)]


class Machine(RuleBasedStateMachine):
    """Rules have no preconditions: who wins a race differs from run to run, and what is drawn must not depend on it. A rule
    that finds nothing to do does nothing, or takes a lease."""

    world: ClassVar[World]
    runs: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.touched: set[str] = set()
        self.last: Task | None = None
        self.overtaken = 0
        """Once an example is enough: each takes a queue of its own."""
        self.runs["examples"] += 1

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.world.do(work)

    def api(self, side: int) -> Api:
        return self.world.apis[side]

    def post(self, side: int, path: str, json: Any = None, token: str | None = None) -> httpx2.Response:
        headers = {} if token is None else {"sluice-lease-token": token}
        return self.do(self.api(side).post(path, headers=headers, **({} if json is None else {"json": json})))

    def did(self, what: str) -> None:
        self.runs[what] += 1
        event(what)

    def touch(self, task: Task) -> None:
        self.touched.add(task.id)
        self.last = task

    def one(self, tasks: Sequence[Task], pick: int) -> Task:
        """Often the task that something was just done to: trouble comes of what is done to one task after another."""
        return self.last if self.last in tasks and pick % 2 else picked(tasks, pick // 2)  # type: ignore[return-value]

    @initialize(
        limit=LIMITS,
        depth=st.sampled_from([None, None, 3]),
        first=st.lists(st.tuples(PICKS, st.sampled_from(sorted(ANSWERS))), min_size=2, max_size=6),
        things=st.lists(THINGS, max_size=20),
    )
    def begin(
        self, limit: int | None, depth: int | None, first: list[tuple[int, str]], things: list[tuple[Any, ...]]
    ) -> None:
        handler = fresh("h")
        definition = {"url": self.world.handler.url, "fatal_statuses": [FATAL]}
        self.secret = good(self.do(self.api(0).put(f"/handlers/{handler}", json=definition)), 201)["secret"]
        self.again = self.add(Queue(fresh("again"), 0, limit=limit))
        self.later = self.add(Queue(fresh("later"), 2 * HOUR, depth=depth))
        self.push = self.add(Queue(fresh("push"), 2 * HOUR, handler=handler))
        self.pulls = [self.again, self.later]
        self.hold_up(self.push)
        for pick, answer in first:
            self.enqueue_some(0, pick, 1, {"payload": {"answers": [answer, "ok"]}})
        for thing in things:
            self.happens(*thing)
            self.the_service_agrees()

    def add(self, queue: Queue) -> Queue:
        good(self.do(self.api(0).put(f"/queues/{queue.name}", json=queue.definition)), 201)
        self.model.queues[queue.name] = queue
        return queue

    def hold_up(self, queue: Queue) -> None:
        good(self.post(0, f"/queues/{queue.name}/pause"))
        queue.paused = True

    @rule(things=st.lists(THINGS, min_size=1, max_size=5))
    def things_happen(self, things: list[tuple[Any, ...]]) -> None:
        """One rule for all of it: rules are left out of whole examples at random, and trouble needs these together."""
        for thing in things:
            self.happens(*thing)
            self.the_service_agrees()

    def happens(self, side: int, pick: int, what: str, count: int, verb: str, held: bool) -> None:
        match what:
            case "lease":
                self.lease(side, pick, count)
            case "say":
                self.say(side, pick, verb, held)
            case "cancel":
                self.cancel(side, pick)
            case "retry":
                self.retry(side, pick)
            case "due":
                self.one_is_due(pick)
            case "lapse":
                self.a_holder_is_gone(side, pick, None if held else verb)
            case "expire":
                self.one_expires(pick)
            case "foreign":
                self.say_with_a_foreign_token(side, pick, count, verb)

    # Callers

    @rule(
        side=SIDES,
        pick=PICKS,
        count=st.integers(1, 3),
        priority=st.sampled_from([0, 0, 0, 5, -100]),
        delayed=st.sampled_from([False, False, True]),
        ttl=st.sampled_from([False, False, True]),
        once=st.sampled_from([False, False, True]),
        answers=st.lists(st.sampled_from(sorted(ANSWERS)), min_size=1, max_size=3),
    )
    def enqueue(
        self, side: int, pick: int, count: int, priority: int, delayed: bool, ttl: bool, once: bool, answers: list[str]
    ) -> None:
        body: dict[str, Any] = {"payload": {"answers": answers}, "priority": priority}
        body |= {"delay_seconds": HOUR} if delayed else {}
        body |= {"ttl_seconds": HOUR} if ttl else {}
        body |= {"retry": {"max_attempts": 1}} if once else {}
        self.enqueue_some(side, pick, count, body)

    def enqueue_some(self, side: int, pick: int, count: int, body: dict[str, Any]) -> None:
        queue = picked([self.again, self.later, self.push], pick)
        for _ in range(count):
            deep = self.model.is_deep(queue)
            reply = self.post(side, f"/queues/{queue.name}/tasks", body)
            if deep:
                problem(reply, 429, "queue_full")
                self.did("enqueue: full")
            else:
                self.created(queue, good(reply, 201), body)
                self.did("enqueue")

    def created(self, queue: Queue, shown: dict[str, Any], body: dict[str, Any]) -> Task:
        assert shown["id"] not in self.model.tasks, "an id was given twice"
        task = Task(
            shown["id"],
            queue,
            "scheduled" if "delay_seconds" in body else "ready",
            body.get("priority", 0),
            datetime.fromisoformat(shown["run_at"]),
            body.get("retry", {}).get("max_attempts", 3),
            "ahead" if "ttl_seconds" in body else "none",
            answers=tuple(body["payload"]["answers"]),
        )
        self.model.tasks[task.id] = task
        self.touch(task)
        return task

    @rule(pick=PICKS, key=st.sampled_from("ab"), payload=st.sampled_from(["ok", "error"]), racing=st.booleans())
    def enqueue_under_a_key(self, pick: int, key: str, payload: str, racing: bool) -> None:
        queue = picked([self.again, self.later, self.push], pick)
        body = {"payload": {"answers": [payload]}, "idempotency_key": key}
        known = self.model.keys.get((queue.name, key))
        deep = self.model.is_deep(queue)

        async def ask() -> list[httpx2.Response]:
            sides = (0, 1, 0, 1) if racing else (pick % 2,)
            return await asyncio.gather(*(self.api(s).post(f"/queues/{queue.name}/tasks", json=body) for s in sides))

        replies = self.do(ask())
        if known is None and deep:
            for reply in replies:
                problem(reply, 429, "queue_full")
            return
        if known is None:
            first = next((reply for reply in replies if reply.status_code == 201), replies[0])
            self.model.keys[queue.name, key] = known = payload, self.created(queue, good(first, 201), body)
            replies.remove(first)
        for reply in replies:
            if known[0] == payload:
                assert good(reply, 200)["id"] == known[1].id
                assert reply.headers["idempotent-replayed"] == "true"
                self.did("enqueue: replayed")
            else:
                problem(reply, 422, "idempotency_mismatch")
                self.did("enqueue: mismatch")

    @rule(pick=PICKS)
    def a_key_expires(self, pick: int) -> None:
        if not self.model.keys:
            return
        queue, key = picked(sorted(self.model.keys), pick)
        self.do(self.world.let_key_expire(queue, key))
        del self.model.keys[queue, key]

    def cancel(self, side: int, pick: int) -> None:
        if not self.model.tasks:
            return
        task = self.one(list(self.model.tasks.values()), pick)
        was = task.state
        reply = self.post(side, f"/tasks/{task.id}/cancel")
        if task.is_cancelled():
            assert good(reply)["state"] == "cancelled"
        else:
            problem(reply, 409, "task_ended")
        self.touch(task)
        self.did(f"cancel: {was}")

    def retry(self, side: int, pick: int) -> None:
        if not self.model.tasks:
            return
        task = self.one(list(self.model.tasks.values()), pick)
        was = task.state
        reply = self.post(side, f"/tasks/{task.id}/retry")
        refused = task.is_retried()
        if refused:
            problem(reply, 409, refused)
        else:
            self.now_runs_at(task, good(reply), moved=was != "ready")
        self.touch(task)
        self.did(f"retry: {was}")

    def now_runs_at(self, task: Task, shown: dict[str, Any], *, moved: bool) -> None:
        run_at = datetime.fromisoformat(shown["run_at"])
        assert moved or run_at == task.run_at
        task.run_at = run_at

    # Operators

    @rule(side=SIDES, pick=PICKS, limit=LIMITS)
    def change_a_limit(self, side: int, pick: int, limit: int | None) -> None:
        queue = picked([self.again, self.later, self.push, None], pick)
        if queue is None:
            self.model.limit = None if limit is None else limit + 1
            good(self.do(self.api(side).put("/limits", json={"max_concurrency": self.model.limit})))
        else:
            queue.limit = limit
            good(self.do(self.api(side).put(f"/queues/{queue.name}", json=queue.definition)))
        self.did("limit")

    @rule(side=SIDES, pick=PICKS)
    def pause_or_resume(self, side: int, pick: int) -> None:
        queue = picked(self.pulls, pick)
        good(self.post(side, f"/queues/{queue.name}/{'resume' if queue.paused else 'pause'}"))
        queue.paused = not queue.paused
        self.did("pause or resume")

    # Workers

    def lease(self, side: int, pick: int, max_tasks: int) -> None:
        some = [queue for queue in self.pulls if self.model.next_up(queue)]
        queue = picked(some if some and pick % 4 else self.pulls, pick)
        expected = self.model.next_up(queue)[:max_tasks]
        # a claim that meets another one's lock would come back empty: where there is something, wait for it
        taken = self.do(self.take(side, queue, max_tasks, 10 if expected else 0))
        assert [task["id"] for task in taken] == [task.id for task in expected]
        for shown in taken:
            self.started(shown)
        self.did(f"lease: {'some' if taken else 'none'}")

    @rule(pick=PICKS, max_tasks=st.integers(1, 3))
    def lease_through_both(self, pick: int, max_tasks: int) -> None:
        some = [queue for queue in self.pulls if self.model.next_up(queue)]
        if not some:
            return
        queue = picked(some, pick)
        expected = self.model.next_up(queue)
        wait = 10 if len(expected) >= 2 * max_tasks else 0.1

        async def race() -> list[dict[str, Any]]:
            both = await asyncio.gather(*(self.take(side, queue, max_tasks, wait) for side in (0, 1)))
            return [task for taken in both for task in taken]

        taken = self.do(race())
        ids = [task["id"] for task in taken]
        assert len(set(ids)) == len(ids), "leased twice"
        assert sorted(ids) == sorted(task.id for task in expected[: len(ids)]), "beyond the limit, or out of order"
        assert len(ids) >= min(len(expected), max_tasks)
        for shown in taken:
            self.started(shown)
        self.did("lease: two at once")

    async def take(self, side: int, queue: Queue, max_tasks: int, wait_seconds: float) -> list[dict[str, Any]]:
        body = {"max_tasks": max_tasks, "wait_seconds": wait_seconds, "lease_seconds": HOUR}
        tasks: list[dict[str, Any]] = good(await self.api(side).post(f"/queues/{queue.name}/leases", json=body))[
            "tasks"
        ]
        return tasks

    def started(self, shown: dict[str, Any]) -> None:
        task = self.model.tasks[shown["id"]]
        task.starts(shown["lease_token"])
        assert (shown["state"], shown["attempt"]) == ("running", task.attempt)
        self.touch(task)

    def say(self, side: int, pick: int, verb: str, held: bool) -> None:
        leases = self.model.leases
        if not leases:
            self.lease(side, pick, 3)
            return
        open_ones = [lease for lease in leases if lease.fate == "held" or not held] or leases
        task = self.one([lease.task for lease in open_ones], pick)
        lease = picked([lease for lease in open_ones if lease.task is task], -1 if held else pick // 2)
        fate = lease.fate
        reply = self.word(side, lease.task, lease.token, verb)
        self.heard(lease, verb, reply)
        self.did(f"{verb}: {fate}")

    def word(self, side: int, task: Task, token: str, verb: str) -> httpx2.Response:
        return self.post(side, f"/tasks/{task.id}/{verb.replace('stop', 'fail')}", BODIES[verb], token)

    def heard(self, lease: Lease, verb: str, reply: httpx2.Response) -> None:
        """What the answer has to be, and what it does to the task."""
        self.touch(lease.task)
        if lease.fate == "held":
            shown = good(reply)
            self.settled(lease.task, verb, shown)
        elif lease.fate == "settled" and verb != "renew":
            assert good(reply)["id"] == lease.task.id
        else:
            problem(reply, 409, "task_cancelled" if lease.fate == "cancelled" else "lease_lost")
            if lease.fate in ("lost", "cancelled") and verb != "renew":
                lease.speaks_late()

    def settled(self, task: Task, verb: str, shown: dict[str, Any]) -> None:
        if verb == "renew":
            assert (shown["state"], shown["progress"]) == ("running", 0.5)
            return
        if verb == "complete":
            task.succeeds()
            assert (shown["state"], shown["result"]) == ("succeeded", 1)
        elif verb == "stop":
            task.stops("stopped_by_worker")
        elif verb == "fail":
            task.fails(task.queue.backoff_seconds)
        else:
            task.goes_back("released")
        if verb != "complete" and task.expiry == "passed":
            self.do(self.world.sweep_expired(task.id))
        self.now_runs_at(task, shown, moved=verb == "fail")

    def say_with_a_foreign_token(self, side: int, pick: int, other: int, verb: str) -> None:
        if not self.model.tasks:
            return
        task = self.one(list(self.model.tasks.values()), pick)
        token = picked([lease.token for lease in self.model.leases if lease.task is not task] + [str(uuid4())], other)
        problem(self.word(side, task, token, verb), 409, "lease_lost")
        self.touch(task)
        self.did("foreign token")

    # Time

    def one_is_due(self, pick: int) -> None:
        scheduled = self.model.all("scheduled")
        if not scheduled:
            return
        task = self.one(scheduled, pick)
        self.do(self.world.let_be_due(task.id))
        task.is_due()
        self.now_runs_at(task, self.do(self.api(0).task(task.id)), moved=True)
        self.touch(task)
        self.did("due")

    def a_holder_is_gone(self, side: int, pick: int, verb: str | None) -> None:
        """Its lease runs out; some holders are only slow, and say a word before the reap."""
        running = self.model.all("running")
        if not running:
            self.lease(side, pick, 3)
            return
        task = self.one(running, pick)
        lease = task.lease
        self.do(self.world.let_lease_run_out(task.id))
        reply = None if verb is None else self.word(side, task, lease.token, verb)
        self.do(self.world.let_lease_be_reaped(task.id))
        task.lapses()
        if verb is not None and reply is not None:
            self.heard(lease, verb, reply)
        if task.state == "ready":
            self.now_runs_at(task, self.do(self.api(0).task(task.id)), moved=True)
        self.touch(task)
        self.did(f"lapse: {verb or 'silent'}")

    def one_expires(self, pick: int) -> None:
        mortal = [task for task in self.model.all(*UNFINISHED) if task.expiry == "ahead"]
        if not mortal:
            return
        task = self.one(mortal, pick)
        was = task.state
        self.do(self.world.let_expire(task.id))
        task.expires()
        self.touch(task)
        self.did(f"expire: {was}")

    # Handlers

    @rule(side=SIDES)
    def deliver(self, side: int) -> None:
        """Let the push queue run until nothing more can start, and take over which of its tasks did."""
        ready = sorted(self.model.of(self.push, "ready"), key=lambda task: task.order)
        if not ready:
            return
        good(self.post(side, f"/queues/{self.push.name}/resume"))
        disabled = self.do(self.quiet(side))
        good(self.post(side, f"/queues/{self.push.name}/pause"))
        waits = []
        for task in ready:
            numbers = [attempt["number"] for attempt in self.do(self.api(side).attempts(task.id))]
            self.touch(task)
            if len(numbers) == len(task.attempts):
                waits.append(task)
                continue
            assert not waits, "started before one that comes before it"
            assert len(numbers) == len(task.attempts) + 1
            self.answered(task)
        full = self.model.room(self.push) == 0
        assert not waits or full or disabled, "something keeps them from starting"
        if disabled:
            good(self.post(side, f"/handlers/{self.push.handler}/enable"))
        for task in ready:
            self.now_runs_at(task, self.do(self.api(side).task(task.id)), moved=task not in waits)
        self.did(f"deliver: {'disabled' if disabled else 'full' if waits else 'all'}")

    async def quiet(self, side: int) -> bool:
        """Wait until no call is under way and none can start; whether the handler got disabled."""
        api = self.api(side)

        async def is_quiet() -> str | None:
            tasks = await api.pages("/tasks", queue=self.push.name)
            running = [task["id"] for task in tasks if task["state"] == "running"]
            outcomes = [(await api.attempts(task_id))[0]["outcome"] for task_id in running]
            # a call under way, or one that has been answered since the tasks were read
            if any(outcome != "held" for outcome in outcomes):
                return None
            # after the tasks: an answer that disables the handler does so before it ends its attempt
            enabled = good(await api.get(f"/handlers/{self.push.handler}"))["enabled"]
            elsewhere = sum(t.state == "running" and t.queue is not self.push for t in self.model.tasks.values())
            full = (self.push.limit is not None and len(running) >= self.push.limit) or (
                self.model.limit is not None and len(running) + elsewhere >= self.model.limit
            )
            waiting = any(task["state"] == "ready" for task in tasks)
            return ("enabled" if enabled else "disabled") if full or not enabled or not waiting else None

        return await poll(is_quiet) == "disabled"

    def answered(self, task: Task) -> None:
        call = len(task.attempts) + 1
        answer = task.answers[min(call, len(task.answers)) - 1]
        task.starts(self.world.tokens[task.id, call])
        match answer:
            case "ok":
                task.succeeds()
            case "error":
                task.fails(task.queue.backoff_seconds)
            case "gone":
                task.goes_back("failed")
            case "never again":
                task.stops("stopped_by_handler")
            case "fatal":
                task.stops("fatal_status")
            case "hold":
                task.attempts[-1].outcome = "held"
        self.did(f"answer: {answer}")

    @rule(side=SIDES, lapses=st.booleans())
    def a_call_is_overtaken(self, side: int, lapses: bool) -> None:
        """A task is cancelled, or its lease runs out, in the middle of its call."""
        if self.overtaken or not self.model.room(self.push):
            return
        self.overtaken += 1
        queue = self.add(Queue(fresh("overtaken"), 0, handler=self.push.handler))
        body = {"payload": {"answers": ["gate"]}}
        self.world.gate.clear()
        shown = good(self.post(side, f"/queues/{queue.name}/tasks", body), 201)
        task = self.created(queue, shown, body)
        self.do(self.world.handler.received(task=task.id))
        task.starts(self.world.tokens[task.id, 1])
        self.hold_up(queue)
        if lapses:
            self.do(self.world.let_lease_run_out(task.id))
            self.do(self.world.let_lease_be_reaped(task.id))
            task.lapses()
            self.do(self.world.open_gate())
            self.do(self.outcome_is(task, "stale"))
            task.lease.speaks_late()
            self.now_runs_at(task, self.do(self.api(side).task(task.id)), moved=True)
        else:
            good(self.post(side, f"/tasks/{task.id}/cancel"))
            task.is_cancelled()
            self.do(self.world.handler.idle())
            self.do(self.world.open_gate())
        self.did(f"overtaken: {'lapse' if lapses else 'cancel'}")

    async def outcome_is(self, task: Task, outcome: str) -> None:
        async def so() -> bool:
            return bool((await self.api(0).attempts(task.id))[0]["outcome"] == outcome)

        await poll(so)

    # They agree

    @invariant()
    def the_service_agrees(self) -> None:
        self.runs["steps"] += 1
        touched, self.touched = self.touched, set()
        self.do(self.compare(self.runs["steps"] % 2, [self.model.tasks[task_id] for task_id in sorted(touched)]))

    async def compare(self, side: int, with_attempts: list[Task]) -> None:
        api = self.api(side)
        lists = await asyncio.gather(*(api.pages("/tasks", queue=name, limit=200) for name in self.model.queues))
        shown = {task["id"]: task for page in lists for task in page}
        assert set(shown) == set(self.model.tasks), "tasks were lost, or made by nobody"
        for task in self.model.tasks.values():
            names = ("state", "reason", "attempt", "max_attempts", "priority", "waiting_for")
            found = {name: shown[task.id][name] for name in names}
            if found["waiting_for"] in ("queue_limit", "global_limit") and self.model.room(task.queue) == 0:
                found["waiting_for"] = "worker"  # which would come next
            if found["waiting_for"] == "no_worker":
                found["waiting_for"] = "worker"  # on a busy machine more than a minute passes between two of them
            assert found == {name: getattr(task, name) for name in names}, task.id
            assert (shown[task.id]["lease"] is not None) == (task.state == "running")
            assert (shown[task.id]["ended_at"] is not None) == (task.state not in UNFINISHED)
        told = await asyncio.gather(*(api.attempts(task.id) for task in with_attempts))
        for task, attempts in zip(with_attempts, told, strict=True):
            known = [(attempt.number, attempt.outcome, attempt.counted) for attempt in reversed(task.attempts)]
            assert [(a["number"], a["outcome"], a["counted"]) for a in attempts] == known, task.id
            assert all((a["ended_at"] is None) == (a["outcome"] in (None, "held")) for a in attempts)

    def teardown(self) -> None:
        tasks = list(self.model.tasks.values())
        try:
            for side in (0, 1):
                self.do(self.compare(side, tasks))
            for request in self.world.handler.requests:
                Webhook(self.secret).verify(request.body, dict(request.headers))
            for task in tasks:
                assert [attempt.number for attempt in task.attempts] == list(range(1, len(task.attempts) + 1))
        finally:
            self.do(self.clear())

    async def clear(self) -> None:
        """What still runs would count against the next example's limit."""
        self.world.handler.requests.clear()
        await self.api(0).put("/limits", json={"max_concurrency": None})
        for name in self.model.queues:
            for task in await self.api(0).pages("/tasks", queue=name, state="running", limit=200):
                await self.api(0).cancel(task["id"])
