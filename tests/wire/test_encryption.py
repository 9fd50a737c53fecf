"""Queues that encrypt: what a copy of the database tells, and what becomes of content that was changed there."""

import base64
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from app.telemetry import events
from tests.handlers import Handler, Received, Reply
from tests.sluices import Replica
from tests.support import poll
from tests.telemetry.collector import Collector, collecting
from tests.wire.api import AT_ONCE, Api, fresh, good, problem

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

CANARY = "canary-Zq7Jx0Vw3LkRtYbN"
KEY = base64.b64encode(b"k" * 32).decode()
FOLLOWUPS = {"content-type": "application/vnd.sluice.tasks+json"}
StartReplica = Callable[..., Awaitable[Replica]]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(events, "emit", lambda log, event, **fields: lines.append(f"{event.name} {fields!r}"))
    return lines


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Of the traces of a replica that is started after it."""
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", collector.url)
        yield collector


@pytest.fixture
async def encrypting(start_replica: StartReplica, said: list[str]) -> Replica:
    return await start_replica(encryption_key=KEY)


@pytest.fixture
def api(encrypting: Replica) -> Api:
    return Api(encrypting.client, encrypting.url)


async def dump(replica: Replica) -> str:
    """Every row of every table as text, bytes in hexadecimal and as they are."""
    db, found = replica.sluice.core.db, []
    tables = await db.fetch(
        "select c.relname from pg_class c where c.relnamespace = 'sluice'::regnamespace and c.relkind = 'r'"
    )
    for (table,) in tables:
        found += [row[0] for row in await db.fetch(f"select t::text from sluice.{table} t")]  # a name of ours
    return "\n".join(found)


def forms(text: str) -> list[str]:
    """How it may stand in a dump: as it is, in hexadecimal, or in base64 with any alignment."""
    inner = [base64.b64encode(b"x" * n + text.encode())[4:-4].decode() for n in range(3)]
    return [text, text.encode().hex(), *inner]


async def test_a_canary_in_all_content_is_in_no_row_log_line_metric_or_trace(
    collector: Collector, encrypting: Replica, api: Api, handler: Handler, said: list[str]
) -> None:
    content = {"it": CANARY}
    after = await api.queue(encrypt=True)
    callbacks = {state: {"queue": after, "body": "payload"} for state in ("succeeded", "dead")}
    queue = await api.queue_to(handler.url, encrypt=True, retry={**AT_ONCE, "max_attempts": 2}, callbacks=callbacks)
    bodies = {
        "page": {"result": content, "next": CANARY[:6], "on_complete": {"queue": after, "payload": content},
                 "tasks": [{"queue": queue, "idempotency_key": "k", "payload": content, "type": "leaf"}]},
        "bad": {"result": content, "tasks": [{"queue": queue, "idempotency_key": "k", "payload": content, CANARY: 1}]},
    }  # fmt: skip

    def answer(request: Received) -> Reply:
        kind = request.headers.get("sluice-type", "")
        if kind in bodies and "sluice-cursor" not in request.headers:
            return Reply(headers=FOLLOWUPS, body=json.dumps(bodies[kind]).encode())
        return Reply(
            500 if kind == "fails" else 200,
            body=json.dumps(content).encode(),
            headers={"content-type": "application/json"},
        )

    handler.script(answer)
    made = {
        kind: await api.enqueue(queue, content, type=kind, idempotency_key=kind)
        for kind in ("plain", "fails", "page", "bad")
    }
    assert made["plain"]["payload"] == content and made["plain"]["encrypted"] is True
    again = await api.post(
        f"/queues/{queue}/tasks", json={"payload": content, "type": "plain", "idempotency_key": "plain"}
    )
    assert good(again)["id"] == made["plain"]["id"]
    await api.bulk(queue, [{"payload": content}, {"payload": {"n": 1}}])
    pull = await api.queue(encrypt=True)
    waits = await api.enqueue(pull, {"n": 1}, unique_key="u", delay_seconds=60)
    await api.post(
        f"/queues/{pull}/tasks",
        json={"payload": content, "unique_key": "u", "on_duplicate": "replace", "delay_seconds": 60},
    )
    assert (await api.task(waits["id"]))["payload"] == content
    changed = {"n": CANARY}
    assert (
        good(await api.client.patch(f"/tasks/{waits['id']}", json={"payload": changed, "delay_seconds": 0}))["payload"]
        == changed
    )
    [leased] = good(await api.post(f"/queues/{pull}/leases", json={"wait_seconds": 5}))["tasks"]
    assert leased["payload"] == changed
    token = {"sluice-lease-token": leased["lease_token"]}
    settled = good(await api.post(f"/tasks/{leased['id']}/complete", json={"result": content}, headers=token))
    assert settled["result"] == content
    schedule = fresh("s")
    definition = {
        "queue": pull,
        "at": "2099-01-01T00:00:00Z",
        "payload": content,
        "on_complete": {"queue": after, "payload": content},
    }
    saved = good(await api.put(f"/schedules/{schedule}", json=definition), 201)
    assert saved["payload"] == content and saved["on_complete"] == definition["on_complete"]
    assert good(await api.put(f"/schedules/{schedule}", json=definition))["payload"] == content
    for body in ({}, {"payload": content}):
        good(await api.post(f"/schedules/{schedule}/trigger", json={**body, "overlap": "allow_all"}))
    runs = good(await api.post(f"/queues/{pull}/leases", json={"max_tasks": 5}))["tasks"]
    assert [run["payload"] for run in runs] == [content] * 2

    ended = {kind: await api.ended(task["id"]) for kind, task in made.items()}
    assert ended["plain"]["result"] == content and ended["page"]["result"] == content
    assert [(ended[kind]["state"]) for kind in made] == ["succeeded", "dead", "succeeded", "dead"]
    failed = await api.attempts(made["fails"]["id"])
    assert [attempt["excerpt"] for attempt in failed] == [json.dumps(content)] * 2
    refused = (await api.attempts(made["bad"]["id"]))[0]
    assert CANARY not in refused["error"] and CANARY in refused["excerpt"]
    # callbacks of the four, of the bulk, of the continuation and its leaf, and what waited for the batch
    called = await poll(lambda: _called(api, after, 9))
    assert [task["payload"] for task in called if task["payload"] not in (content, {"n": 1})] == []
    assert {json.dumps(request.json) for request in handler.requests} == {json.dumps(content), json.dumps({"n": 1})}

    rows = await dump(encrypting)
    metrics = (await api.get("/metrics")).text
    await encrypting.sluice.core.tracing.aclose()
    spans = "\n".join(map(str, collector.spans))
    assert made["plain"]["id"] in spans, "there are traces of these tasks"
    for form in forms(CANARY):
        assert form not in rows and form not in spans
        assert form not in metrics and form not in "\n".join(said)
    assert made["plain"]["id"] in rows


async def _called(api: Api, queue: str, count: int) -> list[dict[str, Any]] | None:
    found = await api.pages("/tasks", queue=queue, include="payload")
    return found if len(found) >= count else None


@pytest.mark.parametrize(
    "how",
    [
        "payload = set_byte(payload, 20, get_byte(payload, 20) # 1)",
        "payload = (select o.payload from sluice.tasks o where o.id = $2)",
        "(payload, options) = (select o.payload, o.options from sluice.tasks o where o.id = $2)",
        "payload = ''",
    ],
    ids=["changed", "swapped", "swapped with its options", "emptied"],
)
async def test_changed_or_swapped_content_fails_the_attempt_and_is_not_sent(
    encrypting: Replica, api: Api, handler: Handler, how: str
) -> None:
    queue = await api.queue_to(handler.url, encrypt=True, retry={**AT_ONCE, "max_attempts": 2})
    good(await api.post(f"/queues/{queue}/pause"))
    victim, other = [(await api.enqueue(queue, {"n": n}))["id"] for n in range(2)]
    db = encrypting.sluice.core.db
    await db.fetch(f"update sluice.tasks set {how} where id = $1 and $2::uuid is not null", victim, other)
    shown = await api.task(victim)
    assert shown["payload"] is None and shown["content_lost"] is True
    good(await api.post(f"/queues/{queue}/resume"))
    dead = await api.ended(victim)
    assert (dead["state"], dead["reason"]) == ("dead", "attempts_exhausted")
    assert "cannot be decrypted" in dead["last_error"]
    assert (await api.ended(other))["state"] == "succeeded"
    assert [request.task for request in handler.requests] == [other]


async def test_a_worker_is_not_given_content_that_is_lost_and_the_attempt_fails(encrypting: Replica, api: Api) -> None:
    queue = await api.queue(encrypt=True, retry={**AT_ONCE, "max_attempts": 1})
    task = await api.enqueue(queue, 1)
    await encrypting.sluice.core.db.fetch("update sluice.tasks set payload = '\\x00' where id = $1", task["id"])
    assert good(await api.post(f"/queues/{queue}/leases", json={}))["tasks"] == []
    assert "cannot be decrypted" in (await api.ended(task["id"]))["last_error"]


async def test_switching_encryption_concerns_new_tasks_also_those_that_schedules_start(
    encrypting: Replica, api: Api
) -> None:
    queue = await api.queue()
    schedule = fresh("s")
    good(
        await api.put(f"/schedules/{schedule}", json={"queue": queue, "at": "2099-01-01T00:00:00Z", "payload": CANARY}),
        201,
    )
    before = await api.enqueue(queue, CANARY, idempotency_key="one")
    for encrypt in (True, False, True):
        good(await api.put(f"/queues/{queue}", json={"encrypt": encrypt}))
        task = await api.enqueue(queue, CANARY)
        assert (task.get("encrypted"), task["payload"]) == (True if encrypt else None, CANARY)
        replay = await api.post(f"/queues/{queue}/tasks", json={"payload": CANARY, "idempotency_key": "one"})
        assert good(replay)["id"] == before["id"]
        good(await api.post(f"/schedules/{schedule}/trigger", json={"overlap": "allow_all"}))
        [run] = good(await api.get("/tasks", params={"schedule": schedule, "limit": 1, "include": "payload"}))["items"]
        assert (run.get("encrypted"), run["payload"]) == (True if encrypt else None, CANARY)
        stored = await encrypting.sluice.core.db.fetchval(
            "select payload from sluice.schedules where name = $1", schedule
        )
        assert (CANARY.encode() in stored) is not encrypt
    assert "encrypted" not in await api.task(before["id"])


async def test_a_task_that_takes_another_payload_keeps_its_own_form_or_takes_that_of_the_duplicate(
    encrypting: Replica, api: Api
) -> None:
    queue = await api.queue(encrypt=True)
    later = {"unique_key": "u", "on_duplicate": "replace", "delay_seconds": 60}
    task = await api.enqueue(queue, 0, **later)
    for n, encrypt in enumerate((False, True, False)):
        good(await api.put(f"/queues/{queue}", json={"encrypt": encrypt}))
        patched = good(await api.client.patch(f"/tasks/{task['id']}", json={"payload": n}))
        assert (patched.get("encrypted"), patched["payload"]) == (None if encrypt else True, n)
        replaced = good(await api.post(f"/queues/{queue}/tasks", json={"payload": CANARY, **later}))
        assert (replaced["id"], replaced.get("encrypted")) == (task["id"], True if encrypt else None)
        assert (await api.task(task["id"]))["payload"] == CANARY


async def test_starts_that_wait_keep_their_own_payloads_through_switches(encrypting: Replica, api: Api) -> None:
    queue, schedule = await api.queue(encrypt=True), fresh("s")
    definition = {"queue": queue, "at": "2099-01-01T00:00:00Z", "payload": None, "overlap": "buffer_all"}
    good(await api.put(f"/schedules/{schedule}", json=definition), 201)
    outcomes = [
        good(await api.post(f"/schedules/{schedule}/trigger", json={"payload": payload}))["outcome"]
        for payload in (CANARY, CANARY, CANARY)
    ]
    assert outcomes == ["running", "waiting", "waiting"]
    for encrypt in (False, True, False, True):
        for _ in range(2):  # the second changes nothing
            good(await api.put(f"/queues/{queue}", json={"encrypt": encrypt}))
    for _ in outcomes:
        [run] = good(await api.post(f"/queues/{queue}/leases", json={"wait_seconds": 5}))["tasks"]
        assert (run["payload"], run["encrypted"]) == (CANARY, True)
        token = {"sluice-lease-token": run["lease_token"]}
        good(await api.post(f"/tasks/{run['id']}/complete", json={}, headers=token))
    assert CANARY not in "".join(await _text_of_payloads(encrypting))


async def _text_of_payloads(replica: Replica) -> list[str]:
    found = await replica.sluice.core.db.fetch("select encode(payload, 'escape') from sluice.task_history")
    return [row[0] for row in found]


@pytest.mark.parametrize("by_schedule", [False, True], ids=["named by pages", "named by a schedule and a page"])
async def test_what_pages_name_for_the_end_is_enqueued_once_through_switches(api: Api, *, by_schedule: bool) -> None:
    after, queue = await api.queue(), await api.queue()
    then = {"queue": after, "payload": CANARY}
    if by_schedule:
        schedule = fresh("s")
        definition = {"queue": queue, "at": "2099-01-01T00:00:00Z", "payload": 1, "on_complete": then}
        good(await api.put(f"/schedules/{schedule}", json=definition), 201)
        good(await api.post(f"/schedules/{schedule}/trigger", json={}))
    else:
        await api.enqueue(queue, 1)
    for encrypt, cursor in ((False, "2"), (True, "3"), (False, None)):
        good(await api.put(f"/queues/{after}", json={"encrypt": encrypt}))
        [page] = good(await api.post(f"/queues/{queue}/leases", json={"wait_seconds": 5}))["tasks"]
        body = {"on_complete": then, **({} if cursor is None else {"next": cursor})}
        token = {"sluice-lease-token": page["lease_token"]}
        good(await api.post(f"/tasks/{page['id']}/complete", json=body, headers=token))
    batch = await poll(lambda: _completed(api, page["batch"]))
    assert [then["queue"] for then in batch["on_complete"]] == [after]
    assert [task["payload"] for task in await api.pages("/tasks", queue=after, include="payload")] == [CANARY]


async def _completed(api: Api, batch: str) -> dict[str, Any] | None:
    found = good(await api.get(f"/batches/{batch}"))
    return found if found["completed_at"] else None


async def test_without_an_encryption_key_no_queue_encrypts(start_replica: StartReplica) -> None:
    replica = await start_replica()
    refused = await replica.client.put(f"/queues/{fresh('q')}", json={"encrypt": True})
    assert "SLUICE_ENCRYPTION_KEY" in problem(refused, 422, "encryption_unavailable")["detail"]
    document = {"queues": {"q": {"encrypt": True}}}
    problem(await replica.client.post("/definitions/apply", json=document), 422, "encryption_unavailable")
