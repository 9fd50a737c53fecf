"""P7: nothing is dropped silently. After a mix of everything that can happen to tasks, the books balance."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from tests.handlers import Handler, Received, Reply
from tests.promises.records import Attempt, attempts, lose_leases
from tests.sluices import Replica, SluiceProcess
from tests.support import poll
from tests.wire.api import Api, good

pytestmark = pytest.mark.anyio

StartSluice = Callable[..., Awaitable[SluiceProcess]]
StartReplica = Callable[..., Awaitable[Replica]]

TASKS = 150
MAX_ATTEMPTS = 3
REASONS: dict[str, set[str | None]] = {
    "succeeded": {None},
    "dead": {"attempts_exhausted", "fatal_status", "stopped_by_handler", "expired"},
    "cancelled": {"requested"},
}
OUTCOMES = {
    *("succeeded", "failed", "timeout", "unreachable"),
    *("lease_expired", "released", "cancelled", "stale"),
}
LATE = ["late", "ok"]
PLANS = (["ok"], ["fail", "ok"], ["fail", "fail", "ok"], ["fail"], ["stop"], ["fatal"], ["drop", "ok"], LATE)
"""What the handler does at each call for a task; the last step repeats."""


@dataclass
class Mayhem:
    """A handler that answers by plan, and callers and accidents that meddle with whatever is there."""

    api: Api
    db: asyncpg.Connection
    """Of the test's own: those of the replicas are cut."""
    handler: Handler
    dice: random.Random = field(default_factory=lambda: random.Random(70))
    ids: list[str] = field(default_factory=list)
    retried: set[str] = field(default_factory=set)
    calls: Counter[str] = field(default_factory=Counter)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    held: list[str] = field(default_factory=list)
    """Tasks whose answer waits for the gate."""

    def answer(self, request: Received) -> Reply:
        plan = request.json["plan"]
        step = plan[min(self.calls[request.task], len(plan) - 1)]
        self.calls[request.task] += 1
        if step == "late":
            self.held.append(request.task)
        return {
            "ok": Reply(body=b"done"),
            "fail": Reply(500, body=b"not now"),
            "stop": Reply(500, {"sluice-retry": "no"}),
            "fatal": Reply(418),
            "drop": Reply(raw=b""),
            "late": Reply(until=self.gate),
        }[step]

    async def enqueue(self, queue: str, number: int) -> None:
        options: dict[str, object] = {}
        if number % 10 == 3:
            options = {"delay_seconds": 0.3, "ttl_seconds": 0.2}
        elif number % 10 == 7:
            options = {"delay_seconds": 0.1, "priority": 5}
        await self.enqueue_plan(queue, self.dice.choice(PLANS), **options)

    async def enqueue_plan(self, queue: str, plan: list[str], **options: object) -> None:
        self.ids.append((await self.api.enqueue(queue, {"plan": plan}, **options))["id"])

    async def kill(self, doomed: SluiceProcess, queue: str) -> None:
        """While it has a call under way, which the others then take."""
        db, name = self.db, doomed.events("ready")[0]["replica"]

        async def holds_some(among: list[str] | None = None) -> bool:
            held = "select count(*) from sluice.tasks where state = 1 and last_replica = $1"
            these = " and ($2::uuid[] is null or id = any($2))"
            return int(await db.fetchval(held + these, name, among)) > 0

        offers = itertools.count(1)

        async def holds_some_now() -> bool:
            await self.enqueue_plan(queue, LATE)
            if await holds_some(self.held):  # those wait for the gate: no such call can end before the kill
                return True
            if next(offers) % 20 == 0:
                await self.answer_late()  # room again, where the others have taken all that the handler's limit allows
            return False

        async def holds_none() -> bool:
            return not await holds_some()

        await poll(holds_some_now, 30)
        await doomed.kill()
        await lose_leases(db)
        await poll(holds_none)

    async def cancel_some(self) -> None:
        for task_id in self.dice.sample(self.ids[-10:], 4):
            assert (await self.api.cancel(task_id)).status_code in (200, 409, 503)

    async def retry_some(self) -> None:
        for task_id in self.dice.sample(self.ids, 5):
            if (await self.api.retry(task_id)).status_code in (200, 503):
                self.retried.add(task_id)

    async def lose_some_leases(self) -> None:
        await lose_leases(self.db, self.dice.sample(self.ids, len(self.ids) // 3))

    async def answer_late(self) -> None:
        """Lets those go that were held, some of whom have lost their lease."""
        self.held.clear()
        self.gate.set()
        self.gate = asyncio.Event()

    async def answer_too_late(self) -> None:
        """The same just after all of them have lost it: on a busy machine, replicas cut those that had lost it before."""
        await lose_leases(self.db, self.held)
        await self.answer_late()

    async def cut_connections(self) -> None:
        """Each gone before anything else is done: what is asked for next meets none that is about to go."""
        await self.db.fetch(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity "
            "where datname = current_database() and application_name = 'sluice' and random() < 0.3"
        )


async def test_after_any_mix_every_task_ends_with_a_reason_and_every_attempt_is_on_record(
    start_sluice: StartSluice, start_replica: StartReplica, handler: Handler, database_url: str
) -> None:
    doomed = await start_sluice(SLUICE_LEASE_SECONDS="5")
    first, second = [await start_replica(lease_seconds=5) for _ in range(2)]
    api = Api(first.client, first.url)
    db = await asyncpg.connect(database_url)
    mayhem = Mayhem(Api(second.client, second.url), db, handler)
    handler.script(mayhem.answer)
    name = await api.handler(handler.url, fatal_statuses=[418], max_concurrency=40)
    retry = {"max_attempts": MAX_ATTEMPTS, "backoff": {"kind": "fixed", "seconds": 0.05}}
    queue = await api.queue(name, retry=retry, timeout_seconds=20)
    deeds = itertools.cycle(
        [mayhem.cancel_some, mayhem.lose_some_leases, mayhem.cut_connections, mayhem.retry_some, mayhem.answer_too_late]
    )
    for number in range(TASKS):
        await mayhem.enqueue(queue, number)
        if number % 5 == 4:
            await next(deeds)()
        if number == TASKS // 2:
            await mayhem.kill(doomed, queue)
    await lose_leases(db)

    async def all_ended() -> bool:
        await mayhem.answer_late()
        stats = good(await api.get(f"/queues/{queue}/stats"))["counts"]
        return not stats["scheduled"] + stats["ready"] + stats["running"]

    await poll(all_ended, 40, every_seconds=0.1)
    await handler.idle()
    await check_books(api, mayhem, queue)
    await db.close()


async def check_books(api: Api, mayhem: Mayhem, queue: str) -> None:
    found: dict[str, list[Attempt]] = {task_id: [] for task_id in mayhem.ids}
    for attempt in await attempts(mayhem.db):
        found[attempt.task_id].append(attempt)
    states: Counter[str] = Counter()
    listed = {task["id"]: task for task in await api.pages("/tasks", queue=queue, limit=200)}
    assert set(listed) == set(mayhem.ids), "every acknowledged task is there, and no other"
    for task_id, task in listed.items():
        states[task["state"]] += 1
        check_task(task, found[task_id], retried=task_id in mayhem.retried)
    tokens = {attempt.token for one in found.values() for attempt in one}
    assert {request.headers["sluice-lease-token"] for request in mayhem.handler.requests} <= tokens
    counts = good(await api.get(f"/queues/{queue}/stats"))["counts"]
    assert {state: counts[state] for state in REASONS} == {state: states[state] for state in REASONS}
    outcomes = {attempt.outcome for one in found.values() for attempt in one}
    assert {"succeeded", "failed", "unreachable", "lease_expired", "stale"} <= outcomes <= OUTCOMES
    reasons = {task["reason"] for task in listed.values()}
    assert reasons == set().union(*REASONS.values()), "the mix had every end in it"


def check_task(task: dict[str, Any], found: list[Attempt], *, retried: bool) -> None:
    assert task["reason"] in REASONS[task["state"]], task
    assert task["ended_at"] is not None
    assert [attempt.number for attempt in found] == list(range(1, len(found) + 1)), (task, found)
    for attempt in found:
        assert attempt.outcome is not None and attempt.ended_at is not None, (task, attempt)
        assert attempt.started_at <= attempt.ended_at
    counted = sum(attempt.counted for attempt in found)
    if retried:
        assert task["attempt"] <= counted
    else:
        assert task["attempt"] == counted
    if task["reason"] == "attempts_exhausted":
        assert task["attempt"] == MAX_ATTEMPTS
    succeeded = [attempt.number for attempt in found if attempt.outcome == "succeeded"]
    assert succeeded == ([len(found)] if task["state"] == "succeeded" else []), (task, found)
