"""kill -9 in the middle of groups: each task has exactly its own outcome, whatever call it was in."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.handlers import Handler, Received, Reply
from tests.promises.records import lose_leases
from tests.sluices import Replica, SluiceProcess
from tests.support import poll
from tests.wire.api import AT_ONCE, Api

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

TASKS = 300
FATES = ("succeeds", "is stopped", "fails first")


def answer(request: Received) -> Reply:
    """By what each task is to become, with a result that names it."""
    failures: list[dict[str, Any]] = []
    results = {}
    for task in request.json["tasks"]:
        number, fate = task["payload"]
        if fate == "is stopped":
            failures.append({"id": task["id"], "error": f"stop {number}", "retry": False})
        elif fate == "fails first" and task["attempt"] == 1:
            failures.append({"id": task["id"], "error": f"not yet {number}"})
        else:
            results[task["id"]] = number
    return Reply(
        200, {"content-type": "application/json"}, json.dumps({"failures": failures, "results": results}).encode()
    )


async def test_a_kill_in_the_middle_of_groups_leaves_each_task_its_own_outcome(
    start_sluice: Callable[..., Awaitable[SluiceProcess]],
    start_replica: Callable[..., Awaitable[Replica]],
    handler: Handler,
) -> None:
    """Some calls have been answered and settled by then, some answered, and some not."""
    doomed = await start_sluice(SLUICE_LEASE_SECONDS="5")
    api = Api(doomed.client, doomed.url)
    hanging = Reply(until=asyncio.Event())
    handler.script(lambda request: hanging if request.number % 5 == 0 else answer(request))
    queue = await api.queue(await api.handler(handler.url, group={"max_tasks": 7}), max_concurrency=60, retry=AT_ONCE)
    payloads = [(number, FATES[number % 3]) for number in range(TASKS)]
    ids = await api.bulk(queue, [{"payload": payload} for payload in payloads])
    await handler.received(20)
    await doomed.kill()
    before = len(handler.requests)
    assert before < 60, "it was killed in the middle"

    handler.script(answer)
    replica = await start_replica(lease_seconds=5)
    await lose_leases(replica.sluice.core.db)
    api = Api(replica.client, replica.url)

    async def ended() -> bool:
        return await replica.sluice.core.db.fetchval("select count(*) from sluice.tasks") == 0

    await poll(ended, 30)
    lost = 0
    for (number, fate), task_id in zip(payloads, ids, strict=True):
        task, attempts = await api.task(task_id), await api.attempts(task_id)
        if fate == "is stopped":
            assert (task["state"], task["reason"], task["last_error"]) == (
                "dead",
                "stopped_by_handler",
                f"stop {number}",
            )
        else:
            assert (task["state"], task["result"]) == ("succeeded", number)
        outcomes = [attempt["outcome"] for attempt in reversed(attempts)]
        lost += outcomes.count("lease_expired")
        assert [attempt["number"] for attempt in reversed(attempts)] == list(range(1, len(attempts) + 1))
        assert set(outcomes[:-1]) <= {"lease_expired", "failed"}
        assert outcomes[-1] == ("failed" if fate == "is stopped" else "succeeded")
        if fate != "fails first":
            assert outcomes[:-1].count("failed") == 0
    assert lost >= 7, "calls were under way"
