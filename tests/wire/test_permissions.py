"""Every route with every kind of key: scopes, keys confined to queues, and keys from which content is hidden.

Whoever adds a route lists it here, with the scope that it needs and what it is about.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal
from uuid import uuid4

import httpx2
import pytest

from app.domain.callers import SCOPES
from app.domain.keys import Grant
from app.service import keys
from app.ui.site import SCREENS
from tests import fake_sources
from tests.handlers import Handler, Reply
from tests.sluices import Replica
from tests.ui.visitors import Visitor
from tests.wire.api import Api, fresh, good, problem

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

Granted = Callable[[str, Grant], Awaitable[Api]]
About = Literal[
    "open",  # needs no key
    "token",  # needs a lease token instead
    "queue",
    "task",
    "batch",
    "schedule",
    "source",
    "handler",
    "limit",
    "key",
    "action",
    "body",  # only its body names a queue: 422 if that is not there
    "list",  # shows what the key sees
    "tenant",  # is about the whole tenant: not there for a confined key
    "fleet",  # is about every tenant: refused to a confined key
    "nothing",  # what is asked is answered from the request alone
]


@dataclass(frozen=True)
class Route:
    scope: str
    about: About
    body: Any = None
    query: str = ""
    pulls: bool = False
    """It hands out content to work on, so a key from which content is hidden is refused."""


YEARLY = {"cron": "@yearly", "payload": 1}
TASK = {"payload": 1}
ROUTES: dict[str, Route] = {
    "start_action": Route("use", "nothing", {"kind": "retry", "filter": {"tag": "none"}}),
    "list_actions": Route("read", "list"),
    "get_action": Route("read", "action"),
    "cancel_action": Route("use", "action"),
    "why_schedule": Route("read", "schedule"),
    "list_audit": Route("manage", "tenant"),
    "create_batch": Route("use", "body", {"queue": "{queue}", "tasks": [TASK]}),
    "list_batches": Route("read", "list"),
    "get_batch": Route("read", "batch"),
    "cancel_batch": Route("use", "batch"),
    "retry_batch": Route("use", "batch"),
    "seal_batch": Route("use", "batch"),
    "add_batch_tasks": Route("use", "batch", {"tasks": [TASK]}),
    "apply_definitions": Route("manage", "queue", {"queues": {"{queue}": {}}}),
    "plan_definitions": Route("manage", "queue", {"queues": {"{queue}": {}}}),
    "list_handlers": Route("read", "list"),
    "put_handler": Route("manage", "handler", {"url": "https://example.com/"}),
    "get_handler": Route("read", "handler"),
    "delete_handler": Route("manage", "handler"),
    "set_handler_breaker": Route("manage", "handler", {"open": True}),
    "disable_handler": Route("manage", "handler"),
    "enable_handler": Route("manage", "handler"),
    "get_handler_health": Route("read", "handler"),
    "rotate_handler_secret": Route("manage", "handler"),
    "test_handler": Route("manage", "handler"),
    "get_liveness": Route("", "open"),
    "get_readiness": Route("", "open"),
    "list_keys": Route("manage", "list"),
    "create_key": Route("manage", "nothing", {"scope": "read", "queues": ["seen-q"], "payloads": False}),
    "get_key": Route("manage", "key"),
    "revoke_key": Route("manage", "key"),
    "rotate_key": Route("manage", "key"),
    "get_limits": Route("read", "tenant"),
    "put_limits": Route("manage", "tenant", {}),
    "put_limit": Route("manage", "limit", {"keyed": True}),
    "get_limit": Route("read", "limit"),
    "delete_limit": Route("manage", "limit"),
    "list_limit_keys": Route("read", "limit"),
    "get_limit_key": Route("read", "limit"),
    "put_limit_key": Route("manage", "limit", {}),
    "delete_limit_key": Route("manage", "limit"),
    "pause_limit_key": Route("manage", "limit"),
    "resume_limit_key": Route("manage", "limit"),
    "pause_limit": Route("manage", "limit"),
    "resume_limit": Route("manage", "limit"),
    "get_events": Route("read", "task", query="task={task_id}"),
    "get_metrics": Route("operate", "fleet"),
    "get_overview": Route("read", "list"),
    "list_queues": Route("read", "list"),
    "put_queue": Route("manage", "queue", {}),
    "get_queue": Route("read", "queue"),
    "delete_queue": Route("manage", "queue"),
    "get_queue_key": Route("read", "queue"),
    "put_queue_key": Route("manage", "queue", {}),
    "pause_queue_key": Route("manage", "queue"),
    "resume_queue_key": Route("manage", "queue"),
    "lease_tasks": Route("use", "queue", pulls=True),
    "pause_queue": Route("manage", "queue"),
    "purge_queue": Route("manage", "queue"),
    "redrive_queue": Route("use", "queue"),
    "resume_queue": Route("manage", "queue"),
    "get_queue_series": Route("read", "queue"),
    "get_queue_stats": Route("read", "queue"),
    "list_queue_errors": Route("read", "queue"),
    "enqueue_task": Route("use", "queue", TASK),
    "enqueue_tasks": Route("use", "queue", {"tasks": [TASK]}),
    "why_queue": Route("read", "queue"),
    "list_schedules": Route("read", "list"),
    "preview_definition": Route("read", "nothing", {"cron": "@yearly"}),
    "put_schedule": Route("manage", "schedule", {"queue": "seen-q", **YEARLY}),
    "get_schedule": Route("read", "schedule"),
    "delete_schedule": Route("manage", "schedule"),
    "backfill_schedule": Route("manage", "schedule", {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}),
    "schedule_history": Route("read", "schedule"),
    "pause_schedule": Route("manage", "schedule"),
    "preview_schedule": Route("read", "schedule"),
    "resume_schedule": Route("manage", "schedule"),
    "trigger_schedule": Route("use", "schedule"),
    "list_sources": Route("read", "list"),
    "put_source": Route("manage", "source", fake_sources.definition("seen-q")),
    "get_source": Route("read", "source"),
    "delete_source": Route("manage", "source"),
    "pause_source": Route("manage", "source"),
    "resume_source": Route("manage", "source"),
    "test_source": Route("manage", "source"),
    "get_series": Route("read", "list"),
    "get_status": Route("operate", "fleet"),
    "list_tasks": Route("read", "list", query="include=payload"),
    "get_task": Route("read", "task"),
    "update_task": Route("use", "task", {"priority": 1}),
    "list_attempts": Route("read", "task"),
    "cancel_task": Route("use", "task"),
    "complete_task": Route("", "token"),
    "fail_task": Route("", "token", {"error": "x"}),
    "release_task": Route("", "token"),
    "renew_lease": Route("", "token", {"seconds": 30}),
    "retry_task": Route("use", "task"),
    "why_task": Route("read", "task"),
    "get_tenant_limits": Route("operate", "fleet"),
    "put_tenant_limits": Route("operate", "fleet", {"max_concurrency": None}),
}
LAST = ("delete", "revoke", "purge", "cancel", "retry", "seal")
"""What these do would take away what others are about."""


@dataclass(frozen=True)
class Call:
    operation: str
    route: Route
    method: str
    path: str
    body: Any


def calls(document: dict[str, Any], marker: str, ids: dict[str, str]) -> Iterator[Call]:
    """Yield a call of each route, at the things with this marker in their names: queue `MARKER-q`, for example."""
    names = {
        "queue": f"{marker}-q",
        "schedule": f"{marker}-s",
        "source": f"{marker}-i",
        "handler": f"{marker}-h",
        "limit": f"{marker}-l",
    }
    found = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            name = operation["operationId"]
            route = ROUTES[name]
            filled = path.format(**{"name": names.get(route.about, "default"), "key": "k", **ids})
            body = None if route.body is None else json.loads(json.dumps(route.body).replace("{queue}", names["queue"]))
            found.append(Call(name, route, method.upper(), f"{filled}?{route.query.format(**ids)}".rstrip("?"), body))
    yield from sorted(found, key=lambda call: call.operation.startswith(LAST))


async def ask(api: Api, call: Call) -> httpx2.Response:
    if call.operation == "get_events":
        return await first_events(api, call.path)
    return await api.client.request(call.method, call.path, json=call.body)


async def first_events(api: Api, path: str) -> httpx2.Response:
    """Return the answer up to where it has told of the overview and of the task; it has no end of its own."""
    async with api.client.stream("GET", path) as reply, asyncio.timeout(10):
        text, told = "", set[str]()
        async for line in reply.aiter_lines():
            text += line + "\n"
            told |= {line} & {"event: overview", "event: task"}
            if len(told) == 2 and not line:
                break
        return httpx2.Response(reply.status_code, text=text, headers={"content-type": reply.headers["content-type"]})


@pytest.fixture(autouse=True)
async def any_source(keyed: Replica) -> AsyncIterator[None]:
    async with fake_sources.installed(keyed.sluice.core):
        yield


NO_IDS = {"task_id": str(uuid4()), "batch_id": str(uuid4()), "key_id": "unknown", "action_id": str(uuid4())}


@pytest.fixture(scope="module")
async def document(keyed: Replica) -> dict[str, Any]:
    return good(await keyed.client.get("/openapi.json"))


def test_every_route_is_listed_with_what_it_needs(document: dict[str, Any]) -> None:
    found = {operation["operationId"] for methods in document["paths"].values() for operation in methods.values()}
    assert found - ROUTES.keys() == set(), "list these in ROUTES, with the scope that they need and what they are about"
    assert ROUTES.keys() - found == set()


@pytest.mark.parametrize(
    "scope", [pytest.param(scope, marks=() if scope == "read" else pytest.mark.ci) for scope in SCOPES]
)
async def test_a_key_reaches_the_routes_of_its_scope(granted: Granted, document: dict[str, Any], scope: str) -> None:
    asker = await granted(fresh("t"), Grant(scope))
    for call in calls(document, "none", NO_IDS):
        reply = await ask(asker, call)
        if call.route.about in ("open", "token"):
            assert reply.status_code == (200 if call.route.about == "open" else 401), (call, reply.text)
        elif SCOPES.index(scope) < SCOPES.index(call.route.scope):
            assert reply.status_code == 403 and call.route.scope in reply.json()["detail"], (call, reply.text)
        else:
            assert reply.status_code not in (401, 403) and reply.status_code < 500, (call, reply.text)


@pytest.mark.ci
async def test_for_a_confined_key_nothing_is_there_beside_its_queues(
    granted: Granted, document: dict[str, Any]
) -> None:
    tenant = fresh("t")
    boss = await granted(tenant, Grant("operate"))
    ids = {marker: await make(boss, marker) for marker in ("seen", "unseen")}
    for scope in ("manage", "operate"):
        asker = await granted(tenant, Grant(scope, queues=("seen-*",)))
        for call in calls(document, "unseen", ids["unseen"]):
            reply = await ask(asker, call)
            about = call.route.about
            if about in ("queue", "task", "batch", "schedule", "source", "handler", "limit", "key", "action"):
                assert (reply.status_code, reply.json()["code"]) == (404, f"{about}_not_found"), (call, reply.text)
            elif about == "tenant":
                assert (reply.status_code, reply.json()["code"]) == (404, "not_found"), (call, reply.text)
            elif about == "fleet":
                assert reply.status_code == 403, (call, reply.text)
            elif about == "body":
                assert reply.status_code == 422, (call, reply.text)
            elif about == "list":
                assert reply.status_code == 200 and "unseen" not in reply.text, (call, reply.text)
                assert "seen-q" in reply.text or call.operation in ("list_handlers", "list_keys", "get_series"), call
    unseen = {call.operation: call for call in calls(document, "unseen", ids["unseen"])}
    for operation in ("get_queue", "get_task", "get_batch", "get_schedule", "get_handler", "get_limit", "get_key"):
        good(await ask(boss, unseen[operation]))
    task = good(await ask(boss, unseen["get_task"]))
    assert (task["state"], task["priority"]) == ("ready", 0)
    asker = await granted(tenant, Grant("manage", queues=("seen-*",)))
    for call in calls(document, "seen", ids["seen"]):
        if call.route.about in ("queue", "task", "batch", "schedule", "source", "key", "action", "body"):
            reply = await ask(asker, call)
            assert reply.status_code not in (401, 403, 404) and reply.status_code < 500, (call, reply.text)


async def make(boss: Api, marker: str) -> dict[str, str]:
    """Make one of everything, with the marker in each name; return the ids."""
    queue, handler, limit = f"{marker}-q", f"{marker}-h", f"{marker}-l"
    good(await boss.put(f"/limits/{limit}", json={"keyed": True}), 201)
    good(await boss.put(f"/handlers/{handler}", json={"url": "https://example.com/", "breaker": {}}), 201)
    good(await boss.put(f"/queues/{queue}", json={}), 201)
    good(await boss.put(f"/schedules/{marker}-s", json={"queue": queue, **YEARLY}), 201)
    good(await boss.put(f"/sources/{marker}-i", json=fake_sources.definition(queue)), 201)
    batch = good(await boss.post("/batches", json={"queue": queue, "sealed": False}), 201)
    key = good(await boss.post("/keys", json={"queues": [f"{marker}-*"], "scope": "read"}), 201)
    task = await boss.enqueue(queue, tags=[marker])
    asked = {"kind": "set_priority", "priority": 0, "filter": {"queue": queue}}
    action = good(await boss.post("/actions", json=asked), 202)
    return {"task_id": task["id"], "batch_id": batch["id"], "key_id": key["id"], "action_id": action["id"]}


CANARY = "canary-7f3a"


async def test_the_content_of_a_task_is_hidden_from_a_key_that_may_not_read_it(granted: Granted) -> None:
    tenant = fresh("t")
    boss, asker = await granted(tenant, Grant("use")), await granted(tenant, Grant("manage", payloads=False))
    good(await asker.put("/queues/seen-q", json={}), 201)
    made = good(
        await asker.put("/schedules/seen-s", json={"queue": "seen-q", "cron": "@yearly", "payload": CANARY}), 201
    )
    assert made["payload"] is None and made["content_hidden"] is True
    task = await boss.enqueue("seen-q", CANARY)
    assert "payloads" in problem(await asker.post("/queues/seen-q/leases"), 403, "forbidden")["detail"]
    (leased,) = good(await boss.post("/queues/seen-q/leases"))["tasks"]
    failed = {"error": CANARY, "retryable": False}
    good(
        await boss.post(f"/tasks/{task['id']}/fail", json=failed, headers={"sluice-lease-token": leased["lease_token"]})
    )
    for path in (f"/tasks/{task['id']}", "/tasks?include=payload", f"/tasks/{task['id']}/attempts"):
        hidden = (await asker.get(path)).text
        assert CANARY in (await boss.get(path)).text
        assert CANARY not in hidden and '"content_hidden":true' in hidden


@pytest.mark.ci
async def test_no_content_reaches_a_key_from_which_it_is_hidden(
    granted: Granted, document: dict[str, Any], handler: Handler
) -> None:
    tenant = fresh("t")
    boss, asker = await granted(tenant, Grant("operate")), await granted(tenant, Grant("operate", payloads=False))
    tasks = await fill(boss, handler)
    shown: set[str] = set()
    for task_id in tasks:
        ids = NO_IDS | {"task_id": task_id}
        for call in calls(document, "seen", ids):
            if call.method != "GET" or (task_id != tasks[0] and call.route.about != "task"):
                continue
            full, hidden = (await ask(boss, call)).text, (await ask(asker, call)).text
            assert CANARY not in hidden, (call, hidden)
            if CANARY in full:
                shown.add(call.operation)
                assert '"content_hidden":true' in hidden, (call, hidden)
    assert {"get_task", "list_tasks", "list_attempts", "get_schedule", "list_schedules", "why_task"} <= shown


@pytest.mark.ci
async def test_no_answer_to_a_change_shows_content_that_is_hidden(
    granted: Granted, document: dict[str, Any], handler: Handler
) -> None:
    tenant = fresh("t")
    boss, asker = await granted(tenant, Grant("operate")), await granted(tenant, Grant("operate", payloads=False))
    tasks = await fill(boss, handler)
    handler.script(Reply(status=500, body=CANARY.encode()))
    for task_id in tasks:
        for call in calls(document, "seen", NO_IDS | {"task_id": task_id}):
            if call.method == "GET" or call.operation == "put_schedule":
                continue
            reply = await ask(asker, call)
            assert CANARY not in reply.text and reply.status_code < 500, (call, reply.text)
            assert (reply.status_code == 403) == call.route.pulls or call.operation == "rotate_key", (call, reply.text)
    again = {"payload": CANARY, "idempotency_key": "k"}
    for status in (201, 200):
        task = good(await asker.post("/queues/seen-p/tasks", json=again), status)
        assert task["payload"] is None and task["content_hidden"] is True
    document_ = {"schedules": {"seen-s": {"queue": "seen-p", "cron": "@daily", "payload": 2}}}
    plan = good(await asker.post("/definitions/plan", json=document_))
    assert CANARY not in json.dumps(plan)
    changes = {change["field"]: change for change in plan["changes"][0]["changes"]}
    assert changes["payload"] == {"field": "payload", "from": None, "to": None, "content_hidden": True}


REFUSED = {"/tasks/{task}/copy": (403,), "/tasks/{task}/edit": (200, 409)}
"""A copy is nothing without the payload, and a task that has begun cannot be edited."""


async def fill(boss: Api, handler: Handler) -> list[str]:
    """Fill a tenant with the canary wherever there is content; return the tasks that have it."""
    handler.script(Reply(status=500, body=CANARY.encode()))
    good(await boss.put("/handlers/seen-h", json={"url": handler.url}), 201)
    retry = {"retry": {"max_attempts": 2, "backoff": {"kind": "fixed", "seconds": 3600}}}
    good(await boss.put("/queues/seen-p", json={"handler": "seen-h", **retry}), 201)
    good(await boss.put("/queues/seen-q", json={}), 201)
    content = {"payload": CANARY, "on_complete": {"queue": "seen-q", "payload": CANARY}}
    good(await boss.put("/schedules/seen-s", json={"queue": "seen-q", "cron": "@yearly", **content}), 201)
    good(await boss.put("/sources/seen-i", json=fake_sources.definition("seen-q")), 201)
    pushed = (await boss.enqueue("seen-p", CANARY))["id"]
    pulled = [(await boss.enqueue("seen-q", CANARY))["id"] for _ in range(3)]
    leased = good(await boss.post("/queues/seen-q/leases", json={"max_tasks": 3}))["tasks"]
    done, failed, running = [(f"/tasks/{task['id']}", {"sluice-lease-token": task["lease_token"]}) for task in leased]
    for path, token in (done, failed, running):
        good(await boss.post(f"{path}/renew", json={"seconds": 600, "progress": CANARY}, headers=token))
    good(await boss.post(f"{done[0]}/complete", json={"result": CANARY}, headers=done[1]))
    good(await boss.post(f"{failed[0]}/fail", json={"error": CANARY, "retryable": False}, headers=failed[1]))
    await boss.until(pushed, "scheduled", attempt=1)
    good(await boss.post("/actions", json={"kind": "retry", "filter": {"error": CANARY, "state": "dead"}}), 202)
    return [pushed, *pulled]


@pytest.mark.ci
async def test_the_pages_keep_to_what_a_key_sees(keyed: Replica, granted: Granted, handler: Handler) -> None:
    tenant = fresh("t")
    boss = await granted(tenant, Grant("operate"))
    tasks = await fill(boss, handler)
    unseen = await make(boss, "unseen")
    lists = ["/ui", "/ui/queues", "/ui/tasks", "/ui/schedules", "/ui/batches", "/ui/handlers", "/ui/sources"]
    visitors = {}
    for name, grant in (
        ("all", Grant("operate")),
        ("hidden", Grant("operate", payloads=False)),
        ("confined", Grant("operate", queues=("seen-*",))),
    ):
        visitors[name] = Visitor(keyed)
        key = (await keys.create(keyed.sluice.core.db, tenant, grant)).token
        assert (await visitors[name].sign_in(key)).status_code == 303
    shown = set()
    async for screen, path in screens(boss, tasks):
        page = await visitors["hidden"].get(path)
        assert page.status_code in REFUSED.get(screen, (200, 303)), (path, page.status_code)
        assert CANARY not in page.text, path
        if CANARY in (await visitors["all"].get(path)).text:
            shown.add(screen)
    alone = {"/tasks/{task}", "/tasks/{task}/edit", "/tasks/{task}/copy"}
    assert shown == alone | {"/tasks", "/queues/{queue}", "/actions/new"}
    for path in (f"/ui/tasks/{task}" for task in tasks):
        assert "hidden from this key" in (await visitors["hidden"].get(path)).text
    handler.script(Reply(status=500, body=CANARY.encode()))
    for name, text in (("all", CANARY), ("hidden", "hidden from this key")):
        tested = await visitors[name].post(
            "/ui/handlers/seen-h/test", {"token": await visitors[name].token("/ui/handlers/seen-h")}
        )
        assert text in tested.text and (CANARY in tested.text) == (name == "all")
    for path in lists:
        page = await visitors["confined"].get(path)
        assert page.status_code == 200 and "unseen-" not in page.text, path
    for path in (
        "/ui/queues/unseen-q",
        "/ui/schedules/unseen-s",
        "/ui/sources/unseen-i",
        f"/ui/tasks/{unseen['task_id']}",
    ):
        assert (await visitors["confined"].get(path)).status_code == 404, path


async def screens(boss: Api, tasks: list[str]) -> AsyncIterator[tuple[str, str]]:
    """Yield every screen with its address, for each thing that `fill` has made."""
    batch = good(await boss.post("/batches", json={"queue": "seen-q", "tasks": [{"payload": CANARY}]}), 201)
    for task in good(await boss.post("/queues/seen-q/leases"))["tasks"]:
        token, failed = {"sluice-lease-token": task["lease_token"]}, {"error": CANARY, "retryable": False}
        good(await boss.post(f"/tasks/{task['id']}/fail", json=failed, headers=token))
    key = good(await boss.post("/keys", json={"scope": "read"}), 201)
    found = {
        "queue": ["seen-p", "seen-q"],
        "task": tasks,
        "batch": [batch["id"]],
        "schedule": ["seen-s"],
        "handler": ["seen-h"],
        "action": [action["id"] for action in await boss.pages("/actions")],
        "key": [key["id"]],
        "limit": ["seen-l"],
        "source": ["seen-i"],
    }
    good(await boss.put("/limits/seen-l", json={"max_concurrency": 1}), 201)
    # the first sends no data (tests/wire/test_events.py), the second shows documentation
    for screen in SCREENS.keys() - {"/events", "/docs/{folder}/{page}"}:
        noun = re.search("{(.*)}", screen)
        query = "?kind=retry&queue=seen-q" if screen == "/actions/new" else ""
        for name in found[noun[1]] if noun else [""]:
            yield screen, "/ui" + re.sub("{.*}", name, screen) + query
