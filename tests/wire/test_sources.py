"""Sources on the wire: what a definition may say, what is shown of it, and what is kept of the one before."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.domain.callers import Caller
from app.store import tenants
from tests import fake_sources
from tests.fake_sources import FakeQueue
from tests.sluices import Replica
from tests.wire.api import Api, fresh, good, problem

pytestmark = pytest.mark.anyio

SECRET = "hunter2-7f3a"
SQS = {
    "kind": "sqs",
    "queue_url": "https://sqs.eu-west-1.amazonaws.com/123456789012/orders",
    "region": "eu-west-1",
    "credentials": {"access_key_id": "AKIA7F3A", "secret_access_key": SECRET},
}


@pytest.fixture(autouse=True)
async def any_source(shared: Replica) -> AsyncIterator[None]:
    async with fake_sources.installed(shared.sluice.core):
        yield


async def test_a_source_is_defined_shown_changed_and_deleted(api: Api) -> None:
    name, queue = fresh("s"), await api.queue()
    given = fake_sources.definition(queue, url=f"redis://:{SECRET}@127.0.0.1/1")
    made = await api.put(f"/sources/{name}", json=given)
    shown = good(made, 201)
    assert {"kind", "queue", "stream", "group"} <= shown.keys() and "queue_url" not in shown
    assert (shown["url"], shown["start"], shown["field"], shown["claim_idle_seconds"]) == ("***", "0", "body", 60)
    assert (shown["max_outstanding"], shown["body"], shown["on_invalid"]) == (100, "json", "wrap")
    assert (shown["received"], shown["lag"], shown["last_error"]) == (0, None, None)
    again = await api.put(f"/sources/{name}", json=given)
    assert good(again)["name"] == name and again.headers["etag"] == made.headers["etag"]
    changed = await api.put(f"/sources/{name}", json={**given, "max_outstanding": 5})
    assert changed.headers["etag"] != made.headers["etag"]
    stale = {"if-match": made.headers["etag"]}
    problem(await api.put(f"/sources/{name}", json=given, headers=stale), 412, "etag_mismatch")
    problem(await api.client.delete(f"/sources/{name}", headers=stale), 412, "etag_mismatch")
    problem(await api.client.delete(f"/queues/{queue}"), 409, "queue_in_use")
    assert name in [one["name"] for one in await api.pages("/sources", limit=1)]
    for verb, paused in (("pause", True), ("pause", True), ("resume", False)):
        assert good(await api.post(f"/sources/{name}/{verb}"))["paused"] is paused
    assert (await api.client.delete(f"/sources/{name}")).status_code == 204
    problem(await api.get(f"/sources/{name}"), 404, "source_not_found")
    assert (await api.client.delete(f"/queues/{queue}")).status_code == 204
    everything = (await api.get("/audit")).text + made.text + changed.text
    assert SECRET not in everything


async def test_secrets_that_are_left_out_are_kept_and_null_takes_them_away(shared: Replica, api: Api) -> None:
    core = shared.sluice.core
    core.sources._kinds = {**core.sources._kinds, "sqs": core.sources._kinds["redis_stream"]}
    name, queue = fresh("s"), await api.queue()
    good(await api.put(f"/sources/{name}", json={**SQS, "queue": queue}), 201)
    bare = {key: value for key, value in SQS.items() if key != "credentials"} | {"queue": queue}
    kept = good(await api.put(f"/sources/{name}", json={**bare, "visibility_seconds": 30}))
    assert (kept["credentials"], kept["visibility_seconds"]) == ("***", 30) and "url" not in kept
    assert good(await api.put(f"/sources/{name}", json={**bare, "credentials": None}))["credentials"] is None
    other = fake_sources.definition(queue)
    del other["url"]
    problem(await api.put(f"/sources/{name}", json=other), 422, "invalid", "/url")


@pytest.mark.ci
@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"kind": "kafka"}, "/kind"),
        ({"url": 7}, "/url"),
        ({"url": "http://127.0.0.1"}, "/url"),
        ({"stream": None}, "/stream"),
        ({"group": ""}, "/group"),
        ({"queue_url": SQS["queue_url"]}, "/queue_url"),
        ({"credentials": SQS["credentials"]}, "/credentials"),
        ({"start": "7-0"}, "/start"),
        ({"headers": {"webhook-id": "x"}}, "/headers/webhook-id"),
        ({"tags": ["a", "a"]}, "/tags"),
        ({"type": "a\nb"}, "/type"),
        ({"max_outstanding": 0}, "/max_outstanding"),
        ({"key_from": "/a", "body": "text"}, "/key_from"),
        ({"queue": "no-such-queue"}, "/queue"),
        ({"description": "\x00"}, "/description"),
        ({"surprise": 1}, "/surprise"),
        ({"priority": 101}, "/priority"),
    ],
)
async def test_a_definition_that_cannot_be_is_refused_with_its_pointer(
    api: Api, given: dict[str, Any], where: str
) -> None:
    name, queue = fresh("s"), await api.queue()
    body = {**fake_sources.definition(queue), **given}
    reply = problem(await api.put(f"/sources/{name}", json=body), 422, "invalid")
    assert where in [error["pointer"] for error in reply["errors"]]
    problem(await api.get(f"/sources/{name}"), 404, "source_not_found")


async def test_a_kind_that_the_service_lacks_is_said_to_be_unavailable(shared: Replica, api: Api) -> None:
    reply = await api.put(f"/sources/{fresh('s')}", json={**SQS, "queue": await api.queue()})
    problem(reply, 422, "bridge_unavailable")


async def test_only_who_operates_the_replicas_may_use_their_credentials(shared: Replica) -> None:
    from app.domain.conditions import ANY
    from app.domain.errors import Refusal
    from app.domain.queues import QueueDefinition
    from app.domain.sources import SourceDefinition
    from app.service import queues, sources

    core = shared.sluice.core
    core.sources._kinds = {**core.sources._kinds, "sqs": core.sources._kinds["redis_stream"]}
    manager = Caller(await tenants.id_of(core.db, "default"), "default", "manage")
    queue = fresh("q")
    await queues.put(core, manager, queue, QueueDefinition(), ANY)
    given = SourceDefinition(
        kind="sqs", queue=queue, queue_url=str(SQS["queue_url"]), region="eu-west-1", credentials=None
    )
    with pytest.raises(Refusal, match="forbidden"):
        await sources.put(core, manager, fresh("s"), given, ANY)


async def test_a_test_says_how_much_waits_or_why_it_fails(shared: Replica, api: Api) -> None:
    elsewhere = FakeQueue()
    # what a receive takes meanwhile is not acknowledged, so it counts
    elsewhere.may_answer.clear()
    elsewhere.put(b"1", b"2")
    fake_sources.install(shared.sluice.core, {"orders": elsewhere})
    name = fresh("s")
    good(await api.put(f"/sources/{name}", json=fake_sources.definition(await api.queue())), 201)
    found = good(await api.post(f"/sources/{name}/test"))
    assert (found["ok"], found["error"], found["lag"]) == (True, None, 2)
    elsewhere.may_answer.set()


async def test_definitions_bring_sources_and_prune_them_before_their_queues(api: Api) -> None:
    queue, name, owner = fresh("q"), fresh("s"), fresh("o")
    document: dict[str, Any] = {
        "owner": owner,
        "queues": {queue: {}},
        "sources": {name: fake_sources.definition(queue)},
    }
    plan = good(await api.post("/definitions/plan", json=document))
    change = next(one for one in plan["changes"] if one["kind"] == "source")
    assert (change["action"], change["name"]) == ("create", name)
    assert {"field": "url", "from": None, "to": "***"} in change["changes"]
    good(await api.post("/definitions/apply", json=document))
    assert good(await api.get(f"/sources/{name}"))["owner"] == owner
    again = good(await api.post("/definitions/plan", json=document))
    assert {one["action"] for one in again["changes"]} == {"unchanged"}
    bare = dict(document["sources"][name])
    del bare["url"]
    kept = good(await api.post("/definitions/plan", json={**document, "sources": {name: bare}}))
    assert {one["action"] for one in kept["changes"]} == {"unchanged"}
    other = {**bare, "url": "redis://127.0.0.2", "priority": 3}
    changed = good(await api.post("/definitions/plan", json={**document, "sources": {name: other}}))
    fields = next(one["changes"] for one in changed["changes"] if one["kind"] == "source")
    assert {"field": "url", "from": "***", "to": "***"} in fields and len(fields) == 2
    gone = {"owner": owner, "prune": True, "queues": {}, "sources": {}}
    good(await api.post("/definitions/apply", json=gone))
    problem(await api.get(f"/sources/{name}"), 404, "source_not_found")
    missing = {"sources": {name: fake_sources.definition("no-such-queue")}}
    problem(await api.post("/definitions/plan", json=missing), 422, "invalid", f"/sources/{name}/queue")


@pytest.mark.ci
async def test_a_tenant_has_a_hundred_sources_and_no_more(
    shared: Replica, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.service.sources.MAX_SOURCES", 2)
    queue, names = await api.queue(), [fresh("s") for _ in range(3)]
    given = fake_sources.definition(queue)
    for name in names[:2]:
        good(await api.put(f"/sources/{name}", json=given), 201)
    problem(await api.put(f"/sources/{names[2]}", json=given), 422, "invalid")
    good(await api.put(f"/sources/{names[0]}", json={**given, "priority": 1}))
