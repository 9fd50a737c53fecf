"""The OpenAPI document, walked: every operation that changes something leaves a row in the audit, done or refused."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from app.api.audit import AUDITED
from tests import fake_sources
from tests.sluices import Replica
from tests.wire.api import Api, fresh, good

pytestmark = [pytest.mark.anyio, pytest.mark.ci]


@pytest.fixture(autouse=True)
def nothing_refused_lately(shared: Replica) -> None:
    """Of so many refused calls in a minute, as other tests make on this replica, only the first leave a row each."""
    shared.sluice.core.refusals._minutes.clear()


@pytest.fixture(autouse=True)
async def any_source(shared: Replica) -> AsyncIterator[None]:
    async with fake_sources.installed(shared.sluice.core):
        yield


NO_ROW = {
    "enqueue_task": "the task is its record",
    "enqueue_tasks": "the tasks are their record",
    "create_batch": "enqueues: the batch and its tasks are their record",
    "add_batch_tasks": "enqueues: the tasks are their record",
    "seal_batch": "ends what enqueues: the batch is its record",
    "lease_tasks": "leases: the attempt is its record",
    "renew_lease": "leases: the attempt is its record",
    "complete_task": "settles: the attempt is its record",
    "fail_task": "settles: the attempt is its record",
    "release_task": "settles: the attempt is its record",
    "plan_definitions": "changes nothing",
    "preview_definition": "changes nothing",
    "test_source": "changes nothing here, and counts nowhere",
    "test_handler": "changes nothing here, and counts nowhere",
}
"""Operations that are not reads, and why they leave no row."""

LOCAL = "https://example.com/"
Call = tuple[str, str, Any, str | None]
"""Method, path, body, and the name in the row."""


async def a_schedule(api: Api) -> str:
    name, queue = fresh("s"), await api.queue()
    good(await api.put(f"/schedules/{name}", json={"queue": queue, "cron": "0 3 * * *", "payload": 1}), 201)
    return name


async def put_schedule(api: Api) -> Call:
    name = await a_schedule(api)
    return "PUT", f"/schedules/{name}", {"queue": await api.queue(), "every_seconds": 60, "payload": 2}, name


async def a_source(api: Api) -> str:
    name = fresh("s")
    good(await api.put(f"/sources/{name}", json=fake_sources.definition(await api.queue())), 201)
    return name


async def put_source(api: Api) -> Call:
    name = await a_source(api)
    return "PUT", f"/sources/{name}", fake_sources.definition(await api.queue()), name


async def a_batch(api: Api) -> str:
    batch = good(await api.post("/batches", json={"queue": await api.queue(), "tasks": [{"payload": 1}]}), 201)
    return str(batch["id"])


async def a_task(api: Api) -> str:
    return str((await api.enqueue(await api.queue(), 1))["id"])


async def an_action(api: Api) -> str:
    queue = await api.queue()
    for n in range(3):
        await api.enqueue(queue, n)
    body = {"kind": "cancel", "filter": {"queue": queue}, "rate_per_second": 0.1}
    return str(good(await api.post("/actions", json=body), 202)["id"])


def on(noun: str, make: Callable[[Api], Awaitable[str]], method: str, after: str = "", body: Any = None) -> Any:
    async def call(api: Api) -> Call:
        name = await make(api)
        return method, f"/{noun}/{name}{after}", body, name

    return call


def key_of(noun: str, make: Callable[[Api], Awaitable[str]], method: str, after: str = "", body: Any = None) -> Any:
    async def call(api: Api) -> Call:
        name = await make(api)
        return method, f"/{noun}/{name}/keys/ada{after}", body, f"{name}/ada"

    return call


def of(method: str, path: str, body: Any = None, name: str | None = None) -> Any:
    async def call(_: Api) -> Call:
        return method, path, body, name

    return call


async def keyed_limit(api: Api) -> str:
    return await api.limit(keyed=True, max_concurrency=2)


async def a_key(api: Api) -> str:
    return str(good(await api.post("/keys", json={}), 201)["id"])


async def handler(api: Api) -> str:
    return await api.handler(LOCAL)


async def guarded_handler(api: Api) -> str:
    return await api.handler(LOCAL, breaker={})


async def name(_: Api) -> str:
    return fresh("n")


WINDOW = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}
CALLS: dict[str, Callable[[Api], Awaitable[Call]]] = {
    "put_handler": on("handlers", name, "PUT", body={"url": LOCAL}),
    "delete_handler": on("handlers", handler, "DELETE"),
    "enable_handler": on("handlers", handler, "POST", "/enable"),
    "disable_handler": on("handlers", handler, "POST", "/disable"),
    "rotate_handler_secret": on("handlers", handler, "POST", "/rotate-secret"),
    "set_handler_breaker": on("handlers", guarded_handler, "POST", "/breaker", {"open": True}),
    "put_queue": on("queues", name, "PUT", body={}),
    "delete_queue": on("queues", Api.queue, "DELETE"),
    "pause_queue": on("queues", Api.queue, "POST", "/pause"),
    "resume_queue": on("queues", Api.queue, "POST", "/resume"),
    "purge_queue": on("queues", Api.queue, "POST", "/purge"),
    "redrive_queue": on("queues", Api.queue, "POST", "/redrive"),
    "put_queue_key": key_of("queues", Api.queue, "PUT", body={"weight": 2}),
    "pause_queue_key": key_of("queues", Api.queue, "POST", "/pause"),
    "resume_queue_key": key_of("queues", Api.queue, "POST", "/resume"),
    "put_limits": of("PUT", "/limits", {}),
    "put_tenant_limits": of("PUT", "/tenants/default/limits", {"max_concurrency": None}, "default"),
    "put_limit": on("limits", name, "PUT", body={"max_concurrency": 2}),
    "delete_limit": on("limits", keyed_limit, "DELETE"),
    "pause_limit": on("limits", keyed_limit, "POST", "/pause"),
    "resume_limit": on("limits", keyed_limit, "POST", "/resume"),
    "put_limit_key": key_of("limits", keyed_limit, "PUT", body={"max_concurrency": 1}),
    "delete_limit_key": key_of("limits", keyed_limit, "DELETE"),
    "pause_limit_key": key_of("limits", keyed_limit, "POST", "/pause"),
    "resume_limit_key": key_of("limits", keyed_limit, "POST", "/resume"),
    "put_schedule": put_schedule,
    "delete_schedule": on("schedules", a_schedule, "DELETE"),
    "pause_schedule": on("schedules", a_schedule, "POST", "/pause"),
    "resume_schedule": on("schedules", a_schedule, "POST", "/resume"),
    "trigger_schedule": on("schedules", a_schedule, "POST", "/trigger"),
    "backfill_schedule": on("schedules", a_schedule, "POST", "/backfill", WINDOW),
    "put_source": put_source,
    "delete_source": on("sources", a_source, "DELETE"),
    "pause_source": on("sources", a_source, "POST", "/pause"),
    "resume_source": on("sources", a_source, "POST", "/resume"),
    "update_task": on("tasks", a_task, "PATCH", body={"priority": 3}),
    "cancel_task": on("tasks", a_task, "POST", "/cancel"),
    "retry_task": on("tasks", a_task, "POST", "/retry"),
    "rotate_key": on("keys", a_key, "POST", "/rotate"),
    "revoke_key": on("keys", a_key, "DELETE"),
    "cancel_action": on("actions", an_action, "POST", "/cancel"),
    "cancel_batch": on("batches", a_batch, "POST", "/cancel"),
    "retry_batch": on("batches", a_batch, "POST", "/retry"),
}
OWN_TESTS = {
    "apply_definitions": "leaves a row per definition that it changes",
    "create_key": "gives the key its id, which a refused call does not have",
    "start_action": "gives the action its id, which a refused call does not have",
}
"""Audited operations whose rows have tests of their own."""


async def test_every_operation_of_the_document_leaves_a_row_or_says_why_not(shared: Replica, api: Api) -> None:
    document = good(await api.get("/openapi.json"))
    changing = {
        operation["operationId"]
        for operations in document["paths"].values()
        for method, operation in operations.items()
        if method != "get"
    }
    assert changing == AUDITED.keys() | NO_ROW.keys()
    assert AUDITED.keys() == CALLS.keys() | OWN_TESTS.keys() and not AUDITED.keys() & NO_ROW.keys()


@pytest.mark.parametrize("operation", CALLS)
async def test_each_change_leaves_one_row_and_each_refusal_one(api: Api, operation: str) -> None:
    method, path, body, changed = await CALLS[operation](api)
    verb = AUDITED[operation]
    request = fresh("r")
    headers = {"x-request-id": request}
    reply = await api.client.request(method, path, json=body, headers=headers)
    assert reply.is_success, reply.text
    found = [row for row in good(await api.get("/audit"))["items"] if row["request_id"] == request]
    assert [(row["verb"], row["noun"], row["name"], row["outcome"]) for row in found] == [
        (verb.verb, verb.noun, changed, "done")
    ]
    refused = await api.client.request(
        method, path + "?surprise=1", json=body, headers={"x-request-id": "no-" + request}
    )
    assert refused.status_code == 422, refused.text
    found = [row for row in good(await api.get("/audit"))["items"] if row["request_id"] == "no-" + request]
    assert [(row["verb"], row["noun"], row["name"], row["outcome"], row["code"]) for row in found] == [
        (verb.verb, verb.noun, changed, "refused", "invalid")
    ]


async def test_applied_definitions_leave_a_row_each_and_a_refused_document_one(api: Api) -> None:
    queue, limit, request = fresh("q"), fresh("l"), fresh("r")
    document = {"queues": {queue: {}}, "named_limits": {limit: {"max_concurrency": 2}}}
    for wanted, rows in ((document, {("put", "queue", queue), ("put", "limit", limit)}), (document, set())):
        headers = {"x-request-id": f"{request}-{len(rows)}"}
        good(await api.post("/definitions/apply", json=wanted, headers=headers))
        found = [row for row in good(await api.get("/audit"))["items"] if row["request_id"] == headers["x-request-id"]]
        assert {(row["verb"], row["noun"], row["name"]) for row in found} == rows
    bad = {"queues": {queue: {"handler": fresh("nobody")}}}
    assert (await api.post("/definitions/apply", json=bad, headers={"x-request-id": request})).status_code == 422
    (row,) = [row for row in good(await api.get("/audit"))["items"] if row["request_id"] == request]
    assert (row["verb"], row["noun"], row["name"], row["code"]) == ("apply", "definitions", None, "invalid")


async def test_a_new_key_leaves_a_row_with_its_id_and_never_its_token(api: Api) -> None:
    request = fresh("r")
    made = good(await api.post("/keys", json={"scope": "use"}, headers={"x-request-id": request}), 201)
    refused = await api.post("/keys", json={"scope": "king"}, headers={"x-request-id": request})
    assert refused.status_code == 422
    refusal, done = [row for row in good(await api.get("/audit"))["items"] if row["request_id"] == request]
    assert (done["verb"], done["noun"], done["name"], done["outcome"]) == ("create", "key", made["id"], "done")
    assert (refusal["verb"], refusal["noun"], refusal["name"], refusal["code"]) == ("create", "key", None, "invalid")
    assert made["token"] not in (await api.get("/audit")).text
