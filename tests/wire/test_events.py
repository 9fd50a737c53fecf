"""Server-sent events: the overview, alarms, and a task as it changes."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from app.domain.ids import make_api_key
from app.domain.keys import Grant
from app.runtime import looks, viewers
from app.service import events as service
from app.service import keys
from app.sources.kinds import SourceError
from tests import fake_sources
from tests.fake_sources import FakeQueue
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api, fresh, good, problem

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

Told = tuple[str, Any, str]
"""Kind, data and id of an event; a comment has kind "" and no data."""


class Stream:
    def __init__(self, reply: httpx2.Response) -> None:
        self.reply = reply
        self._lines = reply.aiter_lines()

    async def next(self) -> Told:
        fields: dict[str, str] = {}
        async for line in self._lines:
            if not line:
                data = json.loads(fields["data"]) if "data" in fields else fields.get("retry")
                return fields.get("event", "retry" if "retry" in fields else ""), data, fields.get("id", "")
            name, _, value = line.partition(":")
            fields[name] = value.strip()
        return "end", None, ""

    async def until(self, kind: str, matches: Callable[[Any], bool] = lambda _: True) -> Told:
        async with asyncio.timeout(15):
            while True:
                told = await self.next()
                assert told[0] != "end", "the stream has ended"
                if told[0] == kind and matches(told[1]):
                    return told


@asynccontextmanager
async def events(api: Api, query: str = "", last_event_id: str | None = None) -> AsyncIterator[Stream]:
    headers = {} if last_event_id is None else {"last-event-id": last_event_id}
    async with api.client.stream("GET", f"/events{query}", headers=headers) as reply:
        assert reply.status_code == 200, await reply.aread()
        yield Stream(reply)


def queue_of(overview: dict[str, Any], name: str) -> dict[str, Any]:
    """The queue as the overview shows it; nothing if it does not."""
    return next((row for row in overview["queues"] if row["queue"] == name), {})


def ready(queue: str, count: int) -> Callable[[dict[str, Any]], bool]:
    return lambda seen: queue_of(seen, queue).get("tasks", {}).get("ready") == count


@pytest.fixture(autouse=True)
def hurry(shared: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests do not wait for two seconds; the replica is in this process. A look of an earlier test that took long would last."""
    shared.sluice.core.looks._tenants.clear()
    monkeypatch.setattr(viewers, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(looks, "FRESH_SECONDS", 0.05)
    monkeypatch.setattr(looks, "SHARE", 1e9)
    monkeypatch.setattr(service, "OVERVIEW_SECONDS", 0.0)


async def test_a_viewer_gets_the_overview_and_again_when_it_has_changed(api: Api) -> None:
    queue = await api.queue()
    async with events(api) as stream:
        assert stream.reply.headers["content-type"].startswith("text/event-stream")
        assert (stream.reply.headers["x-accel-buffering"], stream.reply.headers["cache-control"]) == ("no", "no-store")
        _, first, _ = await stream.until("overview")
        assert queue_of(first, queue) or await stream.until("overview", lambda seen: bool(queue_of(seen, queue)))
        await api.enqueue(queue)
        await stream.until("overview", ready(queue, 1))


async def test_an_alarm_is_told_when_it_begins_and_when_it_ends(api: Api) -> None:
    queue = await api.queue()
    await api.enqueue(queue)
    async with events(api) as stream:
        good(await api.post(f"/queues/{queue}/pause"))
        _, alarm, _ = await stream.until("alarm", lambda told: told.get("queue") == queue)
        assert (alarm["code"], alarm["active"]) == ("queue_paused", True)
        good(await api.post(f"/queues/{queue}/resume"))
        _, alarm, _ = await stream.until("alarm", lambda told: told.get("queue") == queue)
        assert (alarm["code"], alarm["active"]) == ("queue_paused", False)


async def test_each_of_several_stuck_sources_is_told_of(start_replica: Callable[..., Awaitable[Replica]]) -> None:
    """On a replica of its own: the shared one may have a twin, which would receive from these sources by its own means."""
    replica = await start_replica()
    api, core, names = Api(replica.client, replica.url), replica.sluice.core, {fresh("s"), fresh("s")}
    elsewhere = FakeQueue()
    elsewhere.fails = SourceError("nobody answers")
    fake_sources.install(core, {"orders": elsewhere})
    queue = await api.queue()
    for name in names:
        good(await api.put(f"/sources/{name}", json=fake_sources.definition(queue)), 201)
        await fake_sources.failing_for_an_hour(core, name)
    async with events(api) as stream:
        told = [(await stream.until("alarm", lambda told: told.get("source") in names))[1] for _ in names]
    assert {alarm["source"] for alarm in told} == names


async def test_a_task_is_told_as_it_changes_without_its_payload(api: Api) -> None:
    queue = await api.queue()
    task = await api.enqueue(queue, {"secret": 1})
    async with events(api, f"?task={task['id']}") as stream:
        _, told, _ = await stream.until("task")
        assert (told["id"], told["state"]) == (task["id"], "ready") and "payload" not in told
        [leased] = good(await api.post(f"/queues/{queue}/leases", json={}))["tasks"]
        _, told, _ = await stream.until("task", lambda told: told["state"] == "running")
        token = {"sluice-lease-token": leased["lease_token"]}
        good(await api.post(f"/tasks/{task['id']}/complete", json={"result": 7}, headers=token))
        _, told, known = await stream.until("task", lambda told: told["state"] == "succeeded")
        assert told["result"] == 7
    async with events(api, f"?task={task['id']}", known) as stream:
        kinds = set()
        while "overview" not in kinds:
            kinds.add((await stream.next())[0])
        await stream.until("overview")
        assert "task" not in kinds, "what the last id says is known is not told again"


async def test_what_the_last_id_says_is_known_is_not_sent_again_by_any_replica(
    start_replica: Callable[..., Awaitable[Replica]],
) -> None:
    """These two are no other test's: an alarm of its queues could begin meanwhile."""
    api, other = [Api(replica.client, replica.url) for replica in (await start_replica(), await start_replica())]
    queue = await api.queue()
    await api.enqueue(queue)
    good(await api.post(f"/queues/{queue}/pause"))
    async with events(api) as stream:
        _, _, known = await stream.until("alarm", lambda told: told.get("queue") == queue)
        _, _, known = await stream.until("overview")
    async with events(other, "", known) as stream:
        told = [await stream.next(), await stream.next()]
        assert [kind for kind, _, _ in told] == ["", "overview"], "no alarm that it knows"
    async with events(other, "", "what?") as stream:
        await stream.until("alarm", lambda told: told.get("queue") == queue)


async def test_who_may_not_watch_is_told_so(api: Api) -> None:
    problem(await api.get("/events?task=nobody"), 404, "task_not_found")
    problem(await api.get("/events?task=00000000-0000-7000-8000-000000000000"), 404, "task_not_found")
    head = await api.client.head("/events")
    assert head.status_code == 200 and head.headers["content-type"].startswith("text/event-stream")


async def test_a_tenant_has_so_many_viewers_and_no_more(
    shared: Replica, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = shared.sluice.core
    monkeypatch.setattr(core, "viewing", type(core.viewing)("watching events", places=9, share=1, max_waiting=0))
    async with events(api):
        assert "too many" in problem(await api.get("/events"), 503, "unavailable")["detail"]
    await poll(lambda: core.viewing.taken == 0)
    async with events(api) as stream:
        await stream.until("overview")


async def test_a_silent_stream_has_heartbeats(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "HEARTBEAT_SECONDS", 0.03)
    monkeypatch.setattr(viewers, "TICK_SECONDS", 1.0)
    async with events(api) as stream, asyncio.timeout(10):
        silent = 0
        while silent < 3:
            silent = silent + 1 if (await stream.next())[0] == "" else 0


async def test_overviews_come_at_most_every_two_seconds(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "OVERVIEW_SECONDS", 3600.0)
    queue = await api.queue()
    async with events(api) as stream:
        await stream.until("overview")
        await api.enqueue(queue)
        good(await api.post(f"/queues/{queue}/pause"))
        while (told := await stream.next())[1] is None or told[1].get("queue") != queue:
            assert told[0] != "overview", "it is held back, and the alarm is not"


@pytest.mark.ci
async def test_a_drain_ends_all_streams_with_when_to_come_back(
    start_replica: Callable[..., Awaitable[Replica]],
) -> None:
    replica = await start_replica()
    api = Api(replica.client, replica.url)
    async with events(api) as stream:
        await stream.until("overview")
        replica.sluice.engine.begin_drain()
        _, retry, _ = await stream.until("retry")
        assert 1000 <= int(retry) <= 5000 and (await stream.next())[0] == "end"
    assert "shutting down" in problem(await api.get("/events"), 503, "unavailable")["detail"]


@pytest.mark.ci
async def test_a_stream_ends_when_its_key_is_revoked(
    start_replica: Callable[..., Awaitable[Replica]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "HEARTBEAT_SECONDS", 0.05)
    replica = await start_replica(bootstrap_key=make_api_key().text)
    key = await keys.create(replica.sluice.core.db, "acme", Grant("read"))
    async with replica.caller(key.token) as client, events(Api(client, replica.url)) as stream:
        await stream.until("overview")
        assert await keys.revoke(replica.sluice.core.db, key.id)
        async with asyncio.timeout(10):
            while (await stream.next())[0] != "end":
                pass


async def test_nothing_is_read_while_nobody_watches_and_all_viewers_share_what_is(
    shared: Replica, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = shared.sluice.core
    reads = 0
    read = core.looks._read

    async def counted(*args: Any) -> Any:
        nonlocal reads
        reads += 1
        return await read(*args)

    await poll(lambda: not core.viewers._viewers and not core.viewers._looking)
    monkeypatch.setattr(core.looks, "_read", counted)
    queue = await api.queue()
    await api.enqueue(queue)
    assert reads == 0

    async with events(api) as one, events(api) as two, events(api) as three:
        streams = (one, two, three)
        for count in (1, 2, 3):
            ids = {(await stream.until("overview", ready(queue, count)))[2] for stream in streams}
            assert len(ids) == 1 or count == 1, "once all of them watch, they are shown the same"
            await api.enqueue(queue)
        shown = reads
    await poll(lambda: not core.viewers._viewers and not core.viewers._looking)
    assert reads <= shown + 1
