"""Keys, scopes and tenants; and who may ask where no keys are asked for."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from app.domain.callers import SCOPES, STRANGERS
from app.domain.ids import make_api_key
from app.domain.keys import Grant
from app.main import create_key, revoke_key
from app.service.keys import create
from app.settings import Settings
from app.telemetry import events
from tests.databases import create_database, drop_database
from tests.handlers import Handler, Reply
from tests.sluices import Replica, replica_with
from tests.support import poll
from tests.wire.api import Api, fresh, good, own_limits, problem, raw, raw_code

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def guarded(server_url: str) -> AsyncIterator[tuple[Replica, Settings, str]]:
    """A replica that asks for keys, its settings, and the bootstrap key."""
    name = fresh("sluice_test").replace("-", "_")
    key = make_api_key().text
    url = await create_database(server_url, name)
    given = {
        "database_url": url,
        "port": 0,
        "drain_grace_seconds": 0,
        "bootstrap_key": key,
        "egress_allow": "127.0.0.0/8",
    }
    settings = Settings.model_validate(given)
    async with replica_with(settings) as replica:
        yield replica, settings, key
    await drop_database(server_url, name)


Guarded = tuple[Replica, Settings, str]


async def as_(guarded: Guarded, key: str | None, stack: list[httpx2.AsyncClient]) -> Api:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    client = httpx2.AsyncClient(base_url=guarded[0].url, trust_env=False, verify=False, timeout=30, headers=headers)
    stack.append(client)
    return Api(client, guarded[0].url)


@pytest.fixture
async def clients() -> AsyncIterator[list[httpx2.AsyncClient]]:
    opened: list[httpx2.AsyncClient] = []
    yield opened
    for client in opened:
        await client.aclose()


@pytest.fixture
async def boss(guarded: Guarded, clients: list[httpx2.AsyncClient]) -> Api:
    return await as_(guarded, guarded[2], clients)


@pytest.fixture(scope="module")
async def keys(guarded: Guarded) -> dict[str, str]:
    """One key of each scope, of one tenant; and one of another."""
    made = {scope: (await create_key(guarded[1], "acme", Grant(scope))).token for scope in SCOPES}
    return made | {"rival": (await create_key(guarded[1], "rival", Grant("manage"))).token}


ROUTES: list[tuple[str, str, str, Any]] = [
    ("GET", "/handlers", "read", None),
    ("PUT", "/handlers/x", "manage", {"url": "https://example.com/"}),
    ("GET", "/handlers/x", "read", None),
    ("POST", "/handlers/x/disable", "manage", None),
    ("POST", "/handlers/x/enable", "manage", None),
    ("POST", "/handlers/x/rotate-secret", "manage", None),
    ("GET", "/queues", "read", None),
    ("PUT", "/queues/x", "manage", {}),
    ("GET", "/queues/x", "read", None),
    ("GET", "/queues/x/stats", "read", None),
    ("GET", "/queues/x/series", "read", None),
    ("GET", "/series", "read", None),
    ("GET", "/overview", "read", None),
    ("GET", "/events?task=x", "read", None),
    ("POST", "/queues/x/pause", "manage", None),
    ("POST", "/queues/x/resume", "manage", None),
    ("POST", "/queues/x/tasks", "use", {"payload": 1}),
    ("GET", "/tasks", "read", None),
    ("GET", "/limits", "read", None),
    ("PUT", "/limits", "manage", {"max_concurrency": None}),
    ("PUT", "/limits/x", "manage", {"keyed": True}),
    ("GET", "/limits/x", "read", None),
    ("POST", "/limits/x/pause", "manage", None),
    ("POST", "/limits/x/resume", "manage", None),
    ("GET", "/limits/x/keys", "read", None),
    ("PUT", "/limits/x/keys/k", "manage", {}),
    ("GET", "/limits/x/keys/k", "read", None),
    ("POST", "/limits/x/keys/k/pause", "manage", None),
    ("POST", "/limits/x/keys/k/resume", "manage", None),
    ("DELETE", "/limits/x/keys/k", "manage", None),
    ("DELETE", "/limits/x", "manage", None),
    ("PUT", "/queues/x/keys/k", "manage", {}),
    ("GET", "/queues/x/keys/k", "read", None),
    ("POST", "/queues/x/keys/k/pause", "manage", None),
    ("POST", "/queues/x/keys/k/resume", "manage", None),
    ("GET", "/tenants/acme/limits", "operate", None),
    ("PUT", "/tenants/acme/limits", "operate", {"max_concurrency": None}),
    ("GET", "/keys", "manage", None),
    ("POST", "/keys", "manage", {"scope": "read"}),
    ("GET", "/keys/x", "manage", None),
    ("DELETE", "/keys/x", "manage", None),
    ("POST", "/keys/x/rotate", "manage", None),
    ("POST", "/definitions/plan", "manage", {}),
    ("POST", "/definitions/apply", "manage", {}),
    ("GET", "/status", "operate", None),
    ("GET", "/metrics", "operate", None),
    ("DELETE", "/queues/y", "manage", None),
    ("DELETE", "/handlers/y", "manage", None),
]
OPEN = ["/health/live", "/health/ready", "/openapi.json", "/docs", "/llms.txt", "/llms-full.txt"]


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_key_reaches_as_far_as_its_scope(
    guarded: Guarded, keys: dict[str, str], clients: list[httpx2.AsyncClient], scope: str
) -> None:
    chief = await as_(guarded, keys["operate"], clients)
    for path, body in (("/handlers/x", {"url": "https://example.com/"}), ("/queues/x", {})):
        assert (await chief.put(path, json=body)).status_code in (200, 201)
    asker = await as_(guarded, keys[scope], clients)
    for method, path, needed, body in ROUTES:
        reply = await asker.client.request(method, path, json=body)
        if SCOPES.index(scope) < SCOPES.index(needed):
            assert needed in problem(reply, 403, "forbidden")["detail"]
        else:
            assert reply.status_code in (200, 201, 204, 404), (method, path, reply.text)
    task = good(await chief.post("/queues/x/tasks", json={"payload": 1}), 201)
    good(await asker.get(f"/tasks/{task['id']}"))
    good(await asker.get(f"/tasks/{task['id']}/attempts"))
    for reply in (await asker.retry(task["id"]), await asker.cancel(task["id"])):
        if scope == "read":
            assert "use" in problem(reply, 403, "forbidden")["detail"]
        else:
            good(reply)


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer slk_",
        "Bearer slk_nobody",
        "Bearer nobody",
        "Basic c2xrX3g6eA==",
        "slk_x_y",
        "Bearer slk_" + "x" * 10_000,
        "Bearer slk_x\u00fc",
        "Bearer {made up}",
        "Bearer {secret changed}",
        "Bearer {id changed}",
        "Bearer {twice} {twice}",
    ],
)
async def test_without_a_good_key_nothing_is_answered(guarded: Guarded, authorization: str | None) -> None:
    key = guarded[2]
    replaced = {
        "{made up}": make_api_key().text,
        "{secret changed}": key[:-1] + ("a" if key[-1] != "a" else "b"),
        "{id changed}": "slk_" + ("a" if key[4] != "a" else "b") + key[5:],
        "{twice}": key,
    }
    for name, text in replaced.items():
        authorization = None if authorization is None else authorization.replace(name, text)
    headers = [] if authorization is None else [(b"authorization", authorization.strip().encode())]
    async with httpx2.AsyncClient(base_url=guarded[0].url, trust_env=False, verify=False, timeout=30) as client:
        for method, path, _, body in ROUTES:
            reply = await client.request(method, path, json=body, headers=headers)
            problem(reply, 401, "unauthenticated")
            assert reply.headers["www-authenticate"].startswith("Bearer")
            assert key not in reply.text


async def test_what_is_open_needs_no_key_and_a_wrong_one_does_no_harm(guarded: Guarded) -> None:
    async with httpx2.AsyncClient(base_url=guarded[0].url, trust_env=False, verify=False, timeout=30) as client:
        for headers in ({}, {"authorization": "Bearer slk_wrong"}):
            for path in OPEN:
                assert (await client.get(path, headers=headers)).status_code == 200, path


async def test_the_scheme_may_be_written_in_any_case(guarded: Guarded) -> None:
    async with httpx2.AsyncClient(base_url=guarded[0].url, trust_env=False, verify=False, timeout=30) as client:
        for scheme in ("Bearer", "bearer", "BEARER"):
            good(await client.get("/limits", headers={"authorization": f"{scheme} {guarded[2]}"}))
        twice = [("authorization", f"Bearer {guarded[2]}")] * 2
        problem(await client.get("/limits", headers=twice), 400, "malformed")


async def test_the_bootstrap_key_operates_the_default_tenant(boss: Api) -> None:
    good(await boss.get("/status"))
    queue = await boss.queue()
    status = good(await boss.get("/status"))
    assert {"tenant": "default", "queue": queue} in [
        {name: row[name] for name in ("tenant", "queue")} for row in status["queues"]
    ]


async def test_strangers_who_ask_wait_among_themselves(
    guarded: Guarded, boss: Api, clients: list[httpx2.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    good(await boss.get("/limits"))
    monkeypatch.setattr("app.service.authentication.CACHE_SECONDS", 0.0)
    good(await boss.get("/limits"))
    monkeypatch.setattr("app.store.db.TURN_SECONDS", 0.2)
    turns = guarded[0].sluice.core.db._lookup_turns
    stranger = await as_(guarded, make_api_key().text, clients)
    token = {"sluice-lease-token": str(uuid4())}
    async with AsyncExitStack() as stack:
        for _ in range(turns._share):
            await stack.enter_async_context(turns.turn(STRANGERS))
        problem(await stranger.get("/limits"), 503, "unavailable")
        problem(await stranger.post(f"/tasks/{uuid4()}/release", headers=token), 503, "unavailable")
        good(await boss.get("/limits"))
        queue = await boss.queue()
        await boss.enqueue(queue)
        (task,) = good(await boss.post(f"/queues/{queue}/leases"))["tasks"]
        token = {"sluice-lease-token": task["lease_token"]}
        good(await stranger.post(f"/tasks/{task['id']}/complete", headers=token))
    problem(await stranger.get("/limits"), 401, "unauthenticated")


async def test_a_revoked_key_is_refused(guarded: Guarded, clients: list[httpx2.AsyncClient]) -> None:
    key = (await create_key(guarded[1], "acme", Grant("use"))).token
    asker = await as_(guarded, key, clients)
    good(await asker.get("/limits"))
    assert await revoke_key(guarded[1], key.split("_")[1])
    problem(await asker.get("/limits"), 401, "unauthenticated")


async def test_a_tenant_sees_and_changes_nothing_of_another(
    guarded: Guarded, keys: dict[str, str], clients: list[httpx2.AsyncClient], handler: Handler
) -> None:
    mine, rival = [await as_(guarded, keys[name], clients) for name in ("manage", "rival")]
    named = await mine.handler(handler.url)
    queue = await mine.queue(named)
    good(await mine.post(f"/queues/{queue}/pause"))
    task = await mine.enqueue(queue, "secret", idempotency_key="k", tags=["t"], correlation_id="c")
    batch = good(await mine.post("/batches", json={"queue": queue, "sealed": False}), 201)
    schedule, yearly = fresh("s"), {"queue": queue, "payload": "secret", "cron": "@yearly"}
    good(await mine.put(f"/schedules/{schedule}", json=yearly), 201)
    for method, path, code in (
        ("GET", f"/handlers/{named}", "handler_not_found"),
        ("DELETE", f"/handlers/{named}", "handler_not_found"),
        *[
            ("POST", f"/handlers/{named}/{verb}", "handler_not_found")
            for verb in ("enable", "disable", "rotate-secret", "test")
        ],
        ("GET", f"/queues/{queue}", "queue_not_found"),
        ("DELETE", f"/queues/{queue}", "queue_not_found"),
        ("GET", f"/queues/{queue}/stats", "queue_not_found"),
        ("POST", f"/queues/{queue}/pause", "queue_not_found"),
        ("POST", f"/queues/{queue}/resume", "queue_not_found"),
        ("GET", f"/tasks/{task['id']}", "task_not_found"),
        ("GET", f"/tasks/{task['id']}/attempts", "task_not_found"),
        ("POST", f"/tasks/{task['id']}/cancel", "task_not_found"),
        ("POST", f"/tasks/{task['id']}/retry", "task_not_found"),
        ("GET", f"/batches/{batch['id']}", "batch_not_found"),
        *[("POST", f"/batches/{batch['id']}/{verb}", "batch_not_found") for verb in ("seal", "cancel", "retry")],
        *[(method, f"/schedules/{schedule}", "schedule_not_found") for method in ("GET", "DELETE")],
        *[("GET", f"/schedules/{schedule}/{noun}", "schedule_not_found") for noun in ("history", "preview")],
        *[("POST", f"/schedules/{schedule}/{verb}", "schedule_not_found") for verb in ("pause", "resume", "trigger")],
    ):
        reply = await rival.client.request(method, path)
        problem(reply, 404, code)
        assert "secret" not in reply.text
    problem(await rival.post(f"/queues/{queue}/tasks", json={"payload": 1}), 404, "queue_not_found")
    added = await rival.post(f"/batches/{batch['id']}/tasks", json={"tasks": [{"payload": 1}]})
    problem(added, 404, "batch_not_found")
    problem(await rival.post("/batches", json={"queue": queue}), 422, "invalid", "/queue")
    problem(await rival.put(f"/schedules/{schedule}", json=yearly), 422, "invalid", "/queue")
    assert schedule not in [item["id"] for item in await rival.pages("/schedules")]
    for noun in ("handlers", "queues", "tasks", "batches"):
        assert not {named, queue} & {item.get("name", item.get("queue")) for item in await rival.pages(f"/{noun}")}
    for given in ({"queue": queue}, {"handler": named}, {"tag": "t"}, {"correlation_id": "c"}, {"batch": batch["id"]}):
        assert await rival.pages("/tasks", **given) == []
    assert await mine.task(task["id"]) == task


async def test_a_tenant_cannot_use_the_names_of_another(
    guarded: Guarded, keys: dict[str, str], clients: list[httpx2.AsyncClient], handler: Handler
) -> None:
    mine, rival = [await as_(guarded, keys[name], clients) for name in ("manage", "rival")]
    named = await mine.handler(handler.url)
    problem(await rival.put(f"/queues/{fresh('q')}", json={"handler": named}), 422, "invalid", "/handler")
    queue = await rival.queue_to(handler.url)
    reply = await rival.post(f"/queues/{queue}/tasks", json={"payload": 1, "handler": named})
    problem(reply, 422, "invalid", "/handler")
    assert handler.requests == []


async def test_definitions_see_and_prune_those_of_their_own_tenant_alone(
    guarded: Guarded, keys: dict[str, str], clients: list[httpx2.AsyncClient], handler: Handler
) -> None:
    mine, rival = [await as_(guarded, keys[name], clients) for name in ("manage", "rival")]
    named = await mine.handler(handler.url)
    queue = await mine.queue(named)
    everything = {"handlers": {}, "queues": {}, "schedules": {}, "prune": True}
    reply = await rival.post("/definitions/apply", json=everything)
    assert not {named, queue} & {change["name"] for change in good(reply)["changes"]}
    good(await mine.get(f"/queues/{queue}"))
    document: dict[str, Any] = {"queues": {queue: {}}}
    [change] = good(await rival.post("/definitions/plan", json=document))["changes"]
    assert change["action"] == "create"
    document = {"queues": {fresh("q"): {"handler": named}}}
    [fault] = problem(await rival.post("/definitions/plan", json=document), 422, "invalid")["errors"]
    assert fault["detail"] == f"there is no handler {named}; define it here or create it first"


async def test_names_keys_and_limits_of_tenants_are_apart(
    guarded: Guarded, keys: dict[str, str], clients: list[httpx2.AsyncClient], handler: Handler, start_handler: Any
) -> None:
    second = await start_handler()
    mine, rival = [await as_(guarded, keys[name], clients) for name in ("manage", "rival")]
    name = fresh("same")
    tasks = []
    for api, url in ((mine, handler.url), (rival, second.url)):
        good(await api.put(f"/handlers/{name}", json={"url": url}, headers={"if-none-match": "*"}), 201)
        good(await api.put(f"/queues/{name}", json={"handler": name}, headers={"if-none-match": "*"}), 201)
        tasks.append(await api.enqueue(name, {"of": url}, idempotency_key="k"))
    assert tasks[0]["id"] != tasks[1]["id"]
    assert [(await target.received())[0].task for target in (handler, second)] == [task["id"] for task in tasks]
    good(await mine.post(f"/queues/{name}/pause"))
    assert good(await rival.get(f"/queues/{name}"))["paused"] is False
    good(await rival.put("/limits", json={"max_concurrency": 1}))
    assert await own_limits(mine) == {"max_concurrency": None}
    good(await rival.put("/limits", json={}))


async def test_the_limit_of_one_tenant_holds_up_no_other(
    guarded: Guarded, keys: dict[str, str], clients: list[httpx2.AsyncClient], handler: Handler, start_handler: Any
) -> None:
    second = await start_handler()
    mine, rival = [await as_(guarded, keys[name], clients) for name in ("manage", "rival")]
    never = asyncio.Event()
    handler.script(Reply(until=never))
    good(await mine.put("/limits", json={"max_concurrency": 1}))
    queue = await mine.queue_to(handler.url)
    tasks = [await mine.enqueue(queue) for _ in range(2)]
    await handler.received()
    served = await rival.enqueue(await rival.queue_to(second.url))
    await second.received(task=served["id"])

    async def limited() -> bool:
        return "global_limit" in [(await mine.task(task["id"]))["waiting_for"] for task in tasks]

    await poll(limited)
    good(await mine.put("/limits", json={}))
    for task in tasks:
        good(await mine.cancel(task["id"]))


async def test_status_and_metrics_cover_all_tenants(guarded: Guarded, keys: dict[str, str], clients: Any) -> None:
    rival = await as_(guarded, keys["rival"], clients)
    queue = await rival.queue()
    await rival.enqueue(queue)
    chief = await as_(guarded, keys["operate"], clients)
    rows = good(await chief.get("/status"))["queues"]
    assert [row["tenant"] for row in rows if row["queue"] == queue] == ["rival"]


async def test_metrics_may_be_open(start_api: Any) -> None:
    key = make_api_key().text
    api = await start_api(bootstrap_key=key, metrics_open=True)
    assert (await api.get("/metrics")).status_code == 200
    problem(await api.get("/status"), 401, "unauthenticated")


# without keys


async def asked(api: Api, host: str | None, origin: str | None = None, path: str = "/queues") -> Any:
    head = f"GET {path} HTTP/1.1\r\nconnection: close\r\n"
    head += "" if host is None else f"host: {host}\r\n"
    head += "" if origin is None else f"origin: {origin}\r\n"
    return await raw(api.url, (head + "\r\n").encode())


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.1", "0.0.0.0", "", "[::2]"),
        *("localhost@evil", "127.0.0.1:80:80", "2130706433", "localhost:x", "localhost, evil.example"),
    ],
)
async def test_without_keys_a_host_that_is_not_loopback_is_refused(api: Api, host: str) -> None:
    for path in ("/queues", "/health/live", "/nowhere"):
        assert raw_code(await asked(api, host, path=path)) == (403, "host_refused")


async def test_without_keys_an_enqueue_from_elsewhere_stores_nothing(api: Api) -> None:
    queue = await api.queue()
    for headers in ({"host": "evil.example"}, {"origin": "https://evil.example"}, {"origin": "null"}):
        problem(await api.enqueue_bytes(queue, b'{"payload":1}', headers), 403, "host_refused")
    assert await api.pages("/tasks", queue=queue) == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.255.0.9:8080", "[::1]", "[::1]:80"])
async def test_without_keys_loopback_is_served(api: Api, host: str) -> None:
    assert (await asked(api, host))[0] == 200
    assert (await asked(api, host, f"http://{host}"))[0] == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "", "file://", "http://localhost.evil.example", "chrome-extension://x"]
)
async def test_without_keys_a_page_from_elsewhere_is_refused(api: Api, origin: str) -> None:
    assert raw_code(await asked(api, "localhost", origin)) == (403, "host_refused")


async def test_a_request_without_a_host_is_malformed(api: Api) -> None:
    assert raw_code(await asked(api, None)) == (400, "malformed")
    assert raw_code(await asked(api, None, path="http://localhost/queues")) == (400, "malformed")


async def test_without_keys_the_host_of_the_target_counts_and_not_the_header(api: Api) -> None:
    """RFC 9112, section 3.2.2."""
    for elsewhere in ("http://evil.example", "HTTPS://evil.example:80", "http://localhost@evil.example"):
        found = await asked(api, "localhost", path=f"{elsewhere}/queues")
        assert raw_code(found) == (403, "host_refused"), elsewhere
    assert (await asked(api, "evil.example", path="http://localhost:80/queues"))[0] == 200


async def test_without_keys_any_authorization_is_ignored(api: Api) -> None:
    for value in ("Bearer slk_wrong", "Basic x", ""):
        good(await api.get("/limits", headers={"authorization": value}))
    good(await api.get("/status"))


async def test_with_keys_any_host_is_served(boss: Api) -> None:
    good(await boss.get("/limits", headers={"host": "sluice.example.com", "origin": "https://app.example.com"}))


async def test_where_a_key_is_needed_and_there_is_none_a_start_says_what_to_do(
    start_replica: Callable[..., Awaitable[Replica]], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(events, "emit", lambda log, event, **fields: said.append((event.name, fields)))
    replica = await start_replica(auth="on")
    ((_, fields),) = [line for line in said if line[0] == "no_keys"]
    assert "sluice keys create --tenant default --scope operate" in str(fields["hint"])
    key = (await create(replica.sluice.core.db, "default", Grant("operate"))).token
    answer = await replica.client.get("/status", headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 200
    said.clear()
    await start_replica(auth="on")
    assert "no_keys" not in [name for name, _ in said]


@pytest.mark.ci
async def test_a_bootstrap_key_given_to_a_rolling_restart_replaces_the_one_before_on_every_replica(
    start_replica: Callable[..., Awaitable[Replica]],
) -> None:
    former, latter = make_api_key().text, make_api_key().text
    first = await start_replica(bootstrap_key=former)
    second = await start_replica(bootstrap_key=former)
    third = await start_replica(bootstrap_key=latter)
    late = await start_replica(bootstrap_key=former)
    for replica in (first, second, third, late):

        async def settled(replica: Replica = replica) -> bool:
            asked = [
                await replica.client.get("/queues", headers={"authorization": f"Bearer {key}"})
                for key in (former, latter)
            ]
            return [answer.status_code for answer in asked] == [401, 200]

        await poll(settled)
