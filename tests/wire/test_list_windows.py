"""A page of tasks looks at so many rows and no more, and yet the pages together miss nothing and show nothing twice."""

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.store import task_lists, windows
from tests.support import poll
from tests.wire.api import Api, fresh, good

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

QUEUES = 5
TASKS = 40


@pytest.fixture
async def api(start_api: Callable[..., Awaitable[Api]]) -> Api:
    """On a database of its own: a window that finds nothing of others' is over sooner."""
    return await start_api()


@pytest.fixture(params=[0, 10_000], ids=["all tasks", "queue by queue"])
def small_windows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One small window a page."""
    monkeypatch.setattr(task_lists, "FEW_QUEUES", request.param)
    monkeypatch.setattr(windows, "FIRST_WINDOW", 1)
    monkeypatch.setattr(windows, "MAX_WINDOW", 1)
    monkeypatch.setattr(windows, "LOOK_SECONDS", 0)


async def some_tasks(api: Api, word: str) -> list[dict[str, Any]]:
    """Of several queues, one of them deleted and made again; in every state that needs no handler. Newest first."""
    chance = random.Random(1)
    queues = [await api.queue() for _ in range(QUEUES)]
    made: list[dict[str, Any]] = []
    for n in range(TASKS):
        if n == TASKS // 2:
            for task in made:
                if task["queue"] == queues[0]:
                    good(await api.cancel(task["id"]))
            assert (await api.delete(f"/queues/{queues[0]}")).status_code == 204
            good(await api.put(f"/queues/{queues[0]}", json={}), 201)
        fields: dict[str, Any] = {"type": chance.choice("ab"), "tags": [word, chance.choice("xyz")]}
        if chance.random() < 0.2:
            fields["delay_seconds"] = 600
        made.append(await api.enqueue(chance.choice(queues), n, **fields))
    for task in chance.sample(made, TASKS // 3):
        if (await api.task(task["id"]))["state"] != "cancelled":
            await end(api, task, chance)
    return [await api.task(task["id"]) for task in reversed(made)]


async def end(api: Api, task: dict[str, Any], chance: random.Random) -> None:
    leased = good(await api.post(f"/queues/{task['queue']}/leases", json={}))["tasks"]
    if not leased:
        return
    token = {"sluice-lease-token": leased[0]["lease_token"]}
    path = f"/tasks/{leased[0]['id']}"
    if chance.random() < 0.5:
        good(await api.post(f"{path}/complete", json={}, headers=token))
    elif chance.random() < 0.7:
        good(await api.post(f"{path}/fail", json={"error": "no", "retryable": False}, headers=token))


async def pages(api: Api, limit: int, **filters: Any) -> list[list[dict[str, Any]]]:
    found: list[list[dict[str, Any]]] = []
    cursor: dict[str, str] = {}
    while True:
        page = good(await api.get("/tasks", params={"limit": limit, **filters, **cursor}))
        assert len(page["items"]) <= limit
        found.append(page["items"])
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


def ids(tasks: list[dict[str, Any]]) -> list[str]:
    return [task["id"] for task in tasks]


@pytest.mark.ci
@pytest.mark.usefixtures("small_windows")
async def test_pages_of_small_windows_are_the_whole_list(api: Api) -> None:
    word = fresh("w")
    tasks = await some_tasks(api, word)
    states = {task["state"] for task in tasks}
    assert states >= {"ready", "scheduled", "running", "succeeded", "dead", "cancelled"}
    queue = tasks[0]["queue"]
    cases: list[tuple[dict[str, str], list[dict[str, Any]]]] = [
        ({}, tasks),
        *(({"state": state}, [task for task in tasks if task["state"] == state]) for state in sorted(states)),
        ({"type": "a"}, [task for task in tasks if task["type"] == "a"]),
        ({"queue": queue}, [task for task in tasks if task["queue"] == queue]),
        ({"reason": "requested"}, [task for task in tasks if task["reason"] == "requested"]),
        ({"reason": "stopped_by_worker"}, [task for task in tasks if task["reason"] == "stopped_by_worker"]),
        ({"type": "c"}, []),
    ]
    for filters, wanted in cases:
        found = await pages(api, 2, tag=word, **filters)
        assert ids([task for page in found for task in page]) == ids(wanted), filters
    assert len(found) > 2, "what matches nothing is answered in many pages, each of which is quick"
    assert found[0] == []


@pytest.mark.usefixtures("small_windows")
async def test_what_moves_to_history_between_pages_is_neither_missed_nor_shown_twice(api: Api) -> None:
    word = fresh("w")
    tasks = await some_tasks(api, word)
    chance = random.Random(1)
    unfinished = [task["id"] for task in tasks if task["state"] in ("ready", "scheduled")]
    chance.shuffle(unfinished)
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = good(await api.get("/tasks", params={"limit": 3, "tag": word, **cursor}))
        seen += ids(page["items"])
        if unfinished:
            good(await api.cancel(unfinished.pop()))
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == ids(tasks)


@pytest.mark.usefixtures("small_windows")
async def test_so_are_those_of_a_ledger_with_an_outcome(api: Api) -> None:
    queue, name = await api.queue(), fresh("s")
    definition = {"queue": queue, "payload": 1, "cron": "0 0 1 1 *", "overlap": "allow_all"}
    good(await api.put(f"/schedules/{name}", json=definition), 201)
    runs = [good(await api.post(f"/schedules/{name}/trigger")) for _ in range(12)]
    for run in runs[::3]:
        good(await api.cancel(run["task_id"]))
    path = f"/schedules/{name}/history"

    async def of(**filters: str) -> list[str]:
        return [row["task_id"] for row in await api.pages(path, limit=2, **filters)]

    cancelled = [run["task_id"] for run in runs[::3]][::-1]

    async def all_ended() -> bool:
        return await of(outcome="cancelled") == cancelled

    await poll(all_ended)
    assert await of() == [run["task_id"] for run in reversed(runs)]
    assert await of(outcome="running") == [run["task_id"] for run in reversed(runs) if run["task_id"] not in cancelled]
    nothing = good(await api.get(path, params={"limit": 2, "outcome": "missed"}))
    assert nothing["items"] == [] and nothing["next_cursor"]


async def test_a_page_goes_on_looking_while_it_is_quick(api: Api) -> None:
    """So that nobody meets half-empty pages who need not."""
    word = fresh("w")
    tasks = await some_tasks(api, word)
    first = good(await api.get("/tasks", params={"tag": word, "limit": 200}))
    assert ids(first["items"]) == ids(tasks) and first["next_cursor"] is None
