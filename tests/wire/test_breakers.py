"""Handlers that suffer, over the wire: pushed back, parked, their breakers, and adaptive limits."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from app.domain.breakers import opened
from app.engine import attempts, dispatcher
from app.store import breakers as store
from app.store import handlers
from app.store.failures import Unavailable
from tests.handlers import Handler, Reply
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import AT_ONCE, Api, good, problem

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

LONG = {"backoff": {"kind": "fixed", "seconds": 600}}
QUICK = {"window_seconds": 60, "min_calls": 4, "failure_percent": 50, "open_seconds": 0.5, "open_max_seconds": 60}
PUSHED = {"retry-after": "1"}


async def health(api: Api, handler: str) -> dict[str, Any]:
    return good(await api.get(f"/handlers/{handler}/health"))


async def until_state(api: Api, handler: str, state: str) -> dict[str, Any]:
    async def there() -> dict[str, Any] | None:
        shown = await health(api, handler)
        return shown if shown["state"] == state else None

    return await poll(there)


async def set_breaker(api: Api, handler: str, **body: bool) -> dict[str, Any]:
    return good(await api.post(f"/handlers/{handler}/breaker", json=body))


async def test_the_fields_are_off_by_default_and_read_back_as_they_were_put(api: Api, handler: Handler) -> None:
    name = await api.handler(handler.url)
    plain = good(await api.get(f"/handlers/{name}"))
    assert (plain["breaker"], plain["adaptive"], plain["park_on_retry_after"]) == (None, None, "task")
    shown = await health(api, name)
    assert (shown["state"], shown["window"], shown["effective_max_concurrency"]) == (None, None, None)
    given = {"url": handler.url, "breaker": {}, "adaptive": {"min": 2}, "max_concurrency": 9}
    put = good(await api.put(f"/handlers/{name}", json={**given, "park_on_retry_after": "handler"}))
    assert put["breaker"] == {
        "window_seconds": 30, "min_calls": 10, "failure_percent": 50, "open_seconds": 10, "open_max_seconds": 300
    }  # fmt: skip
    assert put["adaptive"] == {"min": 2, "target_seconds": None}
    assert put["park_on_retry_after"] == "handler"
    shown = await health(api, name)
    assert (shown["state"], shown["effective_max_concurrency"], shown["max_concurrency"]) == ("closed", 9, 9)
    assert shown["window"]["calls"] == 0


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"breaker": {"min_calls": 0}}, "/breaker/min_calls"),
        ({"breaker": {"failure_percent": 101}}, "/breaker/failure_percent"),
        ({"breaker": {"window_seconds": 0.5}}, "/breaker/window_seconds"),
        ({"breaker": {"open_seconds": 20, "open_max_seconds": 10}}, "/breaker/open_max_seconds"),
        ({"breaker": {"close_seconds": 1}}, "/breaker/close_seconds"),
        ({"breaker": True}, "/breaker"),
        ({"adaptive": {}}, "/max_concurrency"),
        ({"adaptive": {"min": 5}, "max_concurrency": 4}, "/adaptive/min"),
        ({"adaptive": {"target_seconds": 0}, "max_concurrency": 4}, "/adaptive/target_seconds"),
        ({"park_on_retry_after": "queue"}, "/park_on_retry_after"),
    ],
)
async def test_what_contradicts_itself_is_refused_with_its_place(api: Api, fields: Any, pointer: str) -> None:
    refused = await api.put("/handlers/refused", json={"url": "http://127.0.0.1:9/", **fields})
    problem(refused, 422, "invalid", pointer)
    problem(await api.get("/handlers/refused"), 404, "handler_not_found")


async def test_a_handler_that_pushes_back_spends_no_attempt(api: Api, handler: Handler) -> None:
    handler.answer(*[Reply(429), Reply(503), Reply(429)])
    name = await api.handler(handler.url, breaker={})
    task = await api.enqueue(await api.queue(name, retry=AT_ONCE | {"max_attempts": 1}))
    ended = await api.until(task["id"], "succeeded")
    assert ended["attempt"] == 1
    attempts = await api.attempts(task["id"])
    assert [(a["outcome"], a["counted"], a["status"]) for a in attempts] == [
        ("succeeded", True, 200),
        ("pushed_back", False, 429),
        ("pushed_back", False, 503),
        ("pushed_back", False, 429),
    ]
    assert (await health(api, name))["state"] == "closed"
    window = await poll(lambda: counted(api, name, 4))
    assert (window["failures"], window["pushed_back"], window["failure_percent"]) == (3, 3, 75)


async def counted(api: Api, handler: str, calls: int) -> dict[str, Any] | None:
    window: dict[str, Any] = (await health(api, handler))["window"]
    return window if window["calls"] == calls else None


async def test_without_these_fields_a_429_is_a_failed_attempt(api: Api, handler: Handler) -> None:
    handler.answer(Reply(429))
    task = await api.enqueue(await api.queue_to(handler.url, retry={"max_attempts": 1}))
    ended = await api.until(task["id"], "dead")
    assert (ended["reason"], ended["attempt"]) == ("attempts_exhausted", 1)


async def test_a_task_that_is_pushed_back_waits_for_its_retry_after(api: Api, handler: Handler) -> None:
    handler.answer(Reply(503, {"retry-after": "600"}))
    name = await api.handler(handler.url, adaptive={}, max_concurrency=4)
    task = await api.enqueue(await api.queue(name, retry=AT_ONCE), expires_at=None)
    waiting = await api.until(task["id"], "scheduled", attempt=0)
    assert waiting["last_error"] == "the handler answered 503"
    assert waiting["waiting_for"] == "retry_backoff"


async def test_a_task_that_was_pushed_back_until_it_expired_says_so(api: Api, handler: Handler) -> None:
    handler.script(Reply(429))
    name = await api.handler(handler.url, breaker={"min_calls": 100_000})
    queue = await api.queue(name, retry=LONG)
    task = await api.enqueue(queue, ttl_seconds=0.4)
    ended = await api.ended(task["id"])
    assert (ended["state"], ended["reason"]) == ("dead", "pushed_back_too_long")
    chosen = {"reason": ended["reason"], "dry_run": True}
    assert good(await api.post(f"/queues/{queue}/redrive", json=chosen))["matched"] == 1


async def test_a_retry_after_parks_the_whole_handler(api: Api, other: Api, handler: Handler) -> None:
    handler.answer(Reply(500, {"retry-after": "3600"}))
    name = await api.handler(handler.url, park_on_retry_after="handler")
    first, second = await api.queue(name), await other.queue(name)
    await api.enqueue(first)
    await handler.received(1)
    shown = await poll(lambda: parked(api, name))
    assert shown["state"] is None
    waiting = [await sluice.enqueue(queue) for sluice in (api, other) for queue in (first, second)]
    for task in waiting:
        assert (await other.task(task["id"]))["waiting_for"] == "handler_parked"
    good(await api.post(f"/handlers/{name}/enable"))
    for task in waiting:
        await api.until(task["id"], "succeeded")


async def parked(api: Api, handler: str) -> dict[str, Any] | None:
    shown = await health(api, handler)
    return shown if shown["parked_until"] else None


async def test_a_parked_handler_goes_on_by_itself(api: Api, handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "TRIED_LIMITS", 0)  # and not only because parked lanes are tried now and then
    handler.answer(Reply(500, {"retry-after": "1"}))
    name = await api.handler(handler.url, park_on_retry_after="handler", max_concurrency=1)
    queue = await api.queue(name, retry=AT_ONCE)
    tasks = [await api.enqueue(queue) for _ in range(4)]
    for task in tasks:
        await api.until(task["id"], "succeeded")
    first, second, *_ = handler.requests
    assert second.at - first.at >= 1, "the slot of the call that parked it lets nothing in"


async def test_an_outage_while_a_handler_is_parked_loses_no_outcome(
    api: Api, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    park, outages = handlers.park, iter([Unavailable("gone"), Unavailable("gone")])

    async def parking(*args: Any) -> str | None:
        for outage in outages:
            raise outage
        return await park(*args)

    monkeypatch.setattr(handlers, "park", parking)
    monkeypatch.setattr(attempts, "RETRY_SECONDS", 0.01)
    handler.answer(Reply(500, {"retry-after": "600"}))
    name = await api.handler(handler.url, park_on_retry_after="handler")
    task = await api.enqueue(await api.queue(name, retry=LONG))
    await api.until(task["id"], "scheduled", attempt=1)
    assert await parked(api, name)
    assert [attempt["outcome"] for attempt in await api.attempts(task["id"])] == ["failed"]


async def test_a_retry_after_parks_the_key_and_no_other(api: Api, other: Api, handler: Handler) -> None:
    handler.answer(Reply(500, {"retry-after": "600"}))
    name = await api.handler(handler.url, park_on_retry_after="key")
    queue = await api.queue(name, key={"max_concurrency": 1}, retry=LONG)
    first = await api.enqueue(queue, key="ada")
    same = [await sluice.enqueue(queue, key="ada") for sluice in (api, other)]
    await api.until(first["id"], "scheduled")
    free = [await sluice.enqueue(queue, **given) for sluice in (api, other) for given in ({"key": "bob"}, {})]
    for task in free:
        await api.until(task["id"], "succeeded")
    await until_waiting(other, same, "key_rate", 2)
    waiting = await api.task(same[0]["id"])
    assert waiting["waiting_on"]["key"] == "ada" and waiting["waiting_on"]["until"]
    assert len(handler.requests) == 1 + len(free)


async def test_a_parked_key_goes_on_by_itself(api: Api, handler: Handler) -> None:
    handler.answer(Reply(429, {"retry-after": "1"}))
    name = await api.handler(handler.url, park_on_retry_after="key", breaker={})
    queue = await api.queue(name, key={"max_concurrency": 1}, retry=AT_ONCE)
    tasks = [await api.enqueue(queue, key="ada") for _ in range(3)]
    for task in tasks:
        await api.until(task["id"], "succeeded")
    first, second, *_ = handler.requests
    assert second.at - first.at >= 1


async def test_a_failing_handler_is_left_alone_until_one_probe_succeeds(api: Api, handler: Handler) -> None:
    handler.script(Reply(500))
    name = await api.handler(handler.url, breaker=QUICK | {"open_seconds": 0.3}, max_concurrency=4)
    queue = await api.queue(name, retry=AT_ONCE | {"max_attempts": 1000})
    tasks = [await api.enqueue(queue) for _ in range(8)]
    opened = await until_state(api, name, "open")
    assert opened["effective_max_concurrency"] == 0 and opened["next_probe_at"] and not opened["opened_by_hand"]
    await handler.idle()
    calls = len(handler.requests)
    # each probe fails, and the next comes twice as long after
    await handler.received(calls + 2)
    first, second = handler.requests[calls : calls + 2]
    assert second.at - first.at >= 0.55
    handler.script(Reply())
    await until_state(api, name, "closed")
    for task in tasks:
        await api.until(task["id"], "succeeded")
    assert handler.most_open_calls <= 4


async def test_a_probe_that_a_dead_replica_left_due_is_found(api: Api, shared: Replica, handler: Handler) -> None:
    name, db = await api.handler(handler.url, breaker=QUICK), shared.sluice.core.db
    await set_breaker(api, name, open=True)
    handler_id = await db.fetchval("select id from sluice.handlers where name = $1", name)
    found = await store.read(db, handler_id)
    assert found is not None
    await store.write(db, handler_id, opened(found.health, found.at, seconds=0.0, running=1))
    await until_state(api, name, "half_open")


async def test_a_failed_probe_spends_no_attempt(api: Api, handler: Handler) -> None:
    handler.script(Reply(500))
    name = await api.handler(handler.url, breaker=QUICK | {"min_calls": 1, "open_seconds": 0.1})
    await api.enqueue(await api.queue(name, retry=LONG))
    await until_state(api, name, "open")
    task = await api.enqueue(await api.queue(name, retry=AT_ONCE | {"max_attempts": 1}))
    await handler.received(3, task=task["id"])
    handler.script(Reply())
    ended = await api.until(task["id"], "succeeded")
    assert ended["attempt"] == 1
    newest, *probes = await api.attempts(task["id"])
    assert newest["counted"] and len(probes) >= 3
    assert {(a["outcome"], a["status"], a["counted"]) for a in probes} == {("failed", 500, False)}


async def test_two_replicas_send_exactly_one_probe(api: Api, other: Api, handler: Handler) -> None:
    name = await api.handler(handler.url, breaker=QUICK | {"min_calls": 1, "open_max_seconds": 0.5})
    queues = [await api.queue(name, retry=LONG) for _ in range(4)]
    handler.script(Reply(500))
    await api.enqueue(queues[0])
    await until_state(api, name, "open")
    go = asyncio.Event()
    handler.script(Reply(500, until=go))
    calls = len(handler.requests)
    waiting = [await sluice.enqueue(queue) for queue in queues for sluice in (api, other) for _ in range(3)]
    probing = await until_state(api, name, "half_open")
    assert probing["effective_max_concurrency"] == 1
    await handler.received(calls + 1)
    # whatever wakes all lanes of both replicas finds the only place taken
    for sluice in (api, other):
        good(await sluice.post(f"/queues/{queues[1]}/pause"))
        good(await sluice.post(f"/queues/{queues[1]}/resume"))
        await until_waiting(sluice, waiting, "breaker_open", len(waiting) - 1)
    assert len(handler.requests) == calls + 1
    handler.script(Reply(500))
    go.set()
    await handler.received(calls + 4)
    at = [request.at for request in handler.requests[calls:]]
    assert min(later - one for one, later in pairwise(at)) >= 0.45, "a probe each time, and no other call"
    assert handler.most_open_calls == 1
    handler.script(Reply())
    for task in waiting:
        await api.retry(task["id"])
    await until_state(api, name, "closed")
    for task in waiting:
        await api.until(task["id"], "succeeded")


async def until_waiting(api: Api, tasks: list[dict[str, Any]], waiting_for: str, count: int) -> None:
    async def there() -> bool:
        found = [(await api.task(task["id"]))["waiting_for"] for task in tasks]
        return found.count(waiting_for) == count

    await poll(there)


async def test_a_breaker_is_opened_and_closed_by_hand(api: Api, other: Api, handler: Handler) -> None:
    name = await api.handler(handler.url, breaker=QUICK, max_concurrency=20)
    opened = await set_breaker(api, name, open=True)
    assert (opened["state"], opened["opened_by_hand"], opened["next_probe_at"]) == ("open", True, None)
    assert await set_breaker(api, name, open=True) == opened
    alarms = good(await api.get("/status"))["alarms"]
    assert ("breaker_open", name) in [(alarm["code"], alarm.get("handler")) for alarm in alarms]
    task = await other.enqueue(await api.queue(name))
    assert (await api.task(task["id"]))["waiting_for"] == "breaker_open"
    closed = await set_breaker(other, name, close=True)
    assert (closed["state"], closed["slow_start"], closed["effective_max_concurrency"]) == ("closed", True, 2)
    await api.until(task["id"], "succeeded")

    async def doubled() -> bool:
        return bool((await health(api, name))["effective_max_concurrency"] == 4)

    await poll(doubled)
    for body in ({}, {"open": True, "close": True}, {"open": False}):
        problem(await api.post(f"/handlers/{name}/breaker", json=body), 422, "invalid")
    plain = await api.handler(handler.url)
    problem(await api.post(f"/handlers/{plain}/breaker", json={"open": True}), 422, "invalid")
    problem(await api.post("/handlers/nobody/breaker", json={"open": True}), 404, "handler_not_found")
    problem(await api.get("/handlers/nobody/health"), 404, "handler_not_found")


async def test_a_breaker_that_is_taken_away_holds_nothing_back(api: Api, handler: Handler) -> None:
    name = await api.handler(handler.url, breaker=QUICK)
    await set_breaker(api, name, open=True)
    task = await api.enqueue(await api.queue(name))
    good(await api.put(f"/handlers/{name}", json={"url": handler.url}))
    await api.until(task["id"], "succeeded")
    good(await api.put(f"/handlers/{name}", json={"url": handler.url, "breaker": QUICK}))
    assert (await health(api, name))["state"] == "closed"


async def test_an_adaptive_limit_falls_with_push_backs_and_rises_with_use(api: Api, handler: Handler) -> None:
    name = await api.handler(handler.url, adaptive={"min": 2}, max_concurrency=20)
    queue = await api.queue(name, retry=LONG)
    handler.answer(Reply(429))
    await api.enqueue(queue)

    async def lowered() -> bool:
        return bool((await health(api, name))["effective_max_concurrency"] == 14)

    await poll(lowered)
    go = asyncio.Event()
    handler.script(Reply(until=go))
    calls = len(handler.requests)
    tasks = [await api.enqueue(queue) for _ in range(40)]
    await handler.received(calls + 14)
    assert handler.open_calls == 14
    go.set()
    for task in tasks:
        await api.until(task["id"], "succeeded")
    assert handler.most_open_calls == 14

    async def raised() -> bool:
        return bool((await health(api, name))["effective_max_concurrency"] > 14)

    await poll(raised)
