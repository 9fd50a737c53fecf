"""Both forms against a real Sluice: lists, waits, preconditions, replays, and what a lost answer leaves behind."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from sluice_client.api import Api, SyncApi, reply
from sluice_client.errors import Conflict, Invalid, LeaseLost, NotFound, QueueFull
from tests.sdk.forms import DROP, FORMS, LOSE, Answer, call, client, flaky, listed
from tests.sluices import Replica

pytestmark = [pytest.mark.anyio, pytest.mark.ci, pytest.mark.parametrize("form", FORMS)]

Form = type[Api] | type[SyncApi]


@pytest.fixture
async def api(form: Form, replica: Replica) -> AsyncIterator[Any]:
    async with client(form, replica.url) as api:
        yield api


@pytest.fixture
async def queue(api: Any) -> str:
    """A queue for pull workers."""
    name = f"q-{uuid4().hex[:8]}"
    await call(api, "queues.put", name, max_depth=1000)
    return name


async def test_a_definition_is_changed_only_by_who_has_seen_it(api: Any, queue: str) -> None:
    seen = await call(api, "queues.get", queue)
    etag = reply(seen).etag
    assert seen["max_depth"] == 1000 and etag is not None
    changed = await call(api, "queues.put", queue, max_depth=2, if_match=etag)
    assert changed["max_depth"] == 2 and reply(changed).status == 200 and reply(changed).etag != etag
    with pytest.raises(Conflict) as raised:
        await call(api, "queues.put", queue, max_depth=3, if_match=etag)
    assert raised.value.code == "etag_mismatch" and raised.value.request_id
    with pytest.raises(Conflict):
        await call(api, "queues.put", queue, if_none_match="*")
    assert await call(api, "queues.delete", queue) is None
    with pytest.raises(NotFound, match="queue_not_found"):
        await call(api, "queues.get", queue)


async def test_a_lost_answer_leaves_exactly_one_task(form: Form, replica: Replica, api: Any, queue: str) -> None:
    async with flaky(LOSE, LOSE, upstream=replica.url) as server, client(form, server.url) as lossy:
        task = await call(lossy, "tasks.enqueue", queue, payload={"to": "ada"}, idempotency_key="a")
        assert len(server.asked) == 3 and reply(task).replayed
        several = [{"payload": n, "idempotency_key": f"b-{n}"} for n in range(5)]
        server.script = [LOSE]
        results = (await call(lossy, "tasks.enqueue_many", queue, tasks=several))["results"]
    assert {result["status"] for result in results} == {200}
    found = await listed(await call(api, "tasks.list", queue=queue))
    assert {one["id"] for one in found} == {task["id"], *(result["id"] for result in results)} and len(found) == 6


async def test_a_list_is_read_page_by_page(api: Any, queue: str) -> None:
    await call(api, "tasks.enqueue_many", queue, tasks=[{"payload": n} for n in range(7)])
    pages = await call(api, "tasks.list", queue=queue, limit=3, include="payload")
    assert [task["payload"] for task in await listed(pages)] == [6, 5, 4, 3, 2, 1, 0]
    assert [len(page["items"]) for page in await listed(pages.pages())] == [3, 3, 1]
    first = await call(pages, "page")
    rest = await call(api, "tasks.list", queue=queue, limit=3, cursor=first["next_cursor"])
    assert len(await listed(rest)) == 4


async def test_a_worker_takes_renews_completes_and_loses_a_lease(api: Any, queue: str) -> None:
    taking = asyncio.create_task(call(api, "leases.take", queue, wait_seconds=20))
    task = await call(api, "tasks.enqueue", queue, payload=1)
    (leased,) = (await taking)["tasks"]
    assert leased["id"] == task["id"]
    token = leased["lease_token"]
    await call(api, "leases.renew", task["id"], lease_token=token, seconds=60, progress={"page": 3})
    waiting = asyncio.create_task(call(api, "tasks.get", task["id"], wait_seconds=20))
    for _ in range(2):
        await call(api, "leases.complete", task["id"], lease_token=token, result={"sent": True})
    ended = await waiting
    assert (ended["state"], ended["result"]) == ("succeeded", {"sent": True})
    with pytest.raises(LeaseLost):
        await call(api, "leases.renew", task["id"], lease_token=token, seconds=60)


async def test_what_is_wrong_with_a_body_is_told_with_pointers(api: Any, queue: str) -> None:
    with pytest.raises(Invalid) as raised:
        await call(api, "tasks.enqueue", queue, payload=1, priority=1000)
    assert [error["pointer"] for error in raised.value.errors] == ["/priority"] and "/priority" in str(raised.value)


async def test_a_full_queue_is_told_when_time_is_over(form: Form, replica: Replica, api: Any, queue: str) -> None:
    await call(api, "queues.put", queue, max_depth=1)
    await call(api, "tasks.enqueue", queue, payload=1)
    async with client(form, replica.url, timeout=0.3) as impatient:
        with pytest.raises(QueueFull) as raised:
            await call(impatient, "tasks.enqueue", queue, payload=2, idempotency_key="b")
    assert raised.value.retry_after is not None


async def test_a_batch_is_filled_sealed_and_completed(api: Any, queue: str) -> None:
    batch = await call(
        api, "batches.create", queue=queue, sealed=False, on_complete={"queue": queue, "payload": "done"}
    )
    await call(api, "batches.add", batch["id"], tasks=[{"payload": 1}])
    sealed = await call(api, "batches.seal", batch["id"])
    assert (sealed["sealed"], sealed["total"]) == (True, 1)
    cancelled = await call(api, "batches.cancel", batch["id"])
    assert cancelled["cancelled_at"]


async def test_any_key_is_named(api: Any) -> None:
    name = f"limit-{uuid4().hex[:8]}"
    await call(api, "limits.put", name, max_concurrency=1, keyed=True)
    keys = ["a/b", "..", ".", "a?b#c", "é %", "a;b", "%2E"]
    for key in keys:
        assert (await call(api, "limits.put_key", name, key, max_concurrency=3))["key"] == key
    listed_keys = [one["key"] for one in await listed(await call(api, "limits.keys", name))]
    assert listed_keys == sorted(keys, key=str.encode)


async def test_why_a_task_waits_is_asked_and_cancelling_ends_it(api: Any, queue: str) -> None:
    task = await call(api, "tasks.enqueue", queue, payload=None, delay_seconds=60)
    assert (await call(api, "tasks.why", task["id"]))["blockers"][0]["code"] == "run_at"
    assert (await call(api, "tasks.cancel", task["id"]))["state"] == "cancelled"


async def several(events: Any, count: int) -> list[Any]:
    """Read some events, and leave."""
    if hasattr(events, "__anext__"):
        found = [await anext(events) for _ in range(count)]
        await events.aclose()
        return found
    found = await asyncio.to_thread(lambda: [next(events) for _ in range(count)])
    await asyncio.to_thread(events.close)
    return found


async def test_events_go_on_after_a_break(form: Form) -> None:
    parts = [b"event: overview\nid: 1\ndata: {}\n\n", b': quiet\n\nevent: task\nid: 2\ndata: {"id": "t"}\n\n']
    stream = {"content-type": "text/event-stream"}
    script = (Answer(200, stream, parts[0]), DROP, Answer(200, stream, parts[1]))
    async with flaky(*script) as server, client(form, server.url) as api:
        found = await several(api.events(task="t"), 2)
    assert [(event.name, event.data, event.id) for event in found] == [
        ("overview", {}, "1"),
        ("task", {"id": "t"}, "2"),
    ]
    assert [asked.headers.get("last-event-id") for asked in server.asked] == [None, "1", "1"]
    assert {asked.target for asked in server.asked} == {"/events?task=t"}


async def test_events_of_a_service_are_followed(api: Any) -> None:
    (event,) = await several(api.events(), 1)
    assert event.name == "overview" and event.data["verdicts"]
    with pytest.raises(NotFound):
        await several(api.events(task=str(uuid4())), 1)


async def test_metrics_are_text_and_the_service_speaks_of_itself(api: Any) -> None:
    assert "sluice_tasks" in await call(api, "metrics")
    assert (await call(api, "ready"))["status"] == "ok"
    assert (await call(api, "status"))["version"]
