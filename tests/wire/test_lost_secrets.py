"""A handler whose sealed parts do not open, damaged or restored from a database with another key: it is in no other's way."""

from typing import Any

import pytest

from app.telemetry import events
from tests.handlers import Handler
from tests.sluices import Replica
from tests.wire.api import AT_ONCE, Api, fresh, good, problem

pytestmark = pytest.mark.anyio

DAMAGES = {
    "secret": "sealed_secret = sealed_secret || '\\x00'",
    "headers": "sealed_headers = set_byte(sealed_headers, 20, get_byte(sealed_headers, 20) # 255)",
    "both": "sealed_secret = '\\x00', sealed_headers = ''",
}


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    lines: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(events, "emit", lambda log, event, **fields: lines.append((event.name, fields)))
    return lines


@pytest.fixture
def api(replica: Replica) -> Api:
    return Api(replica.client, replica.url)


async def damaged(replica: Replica, api: Api, url: str, how: str = "both") -> str:
    name = await api.handler(url, headers={"x-token": "hidden"}, timeout_seconds=7)
    # as a restore does it: no version is raised, no replica is told
    await replica.sluice.core.db.fetch(f"update sluice.handlers set {DAMAGES[how]} where name = $1", name)
    return name


@pytest.mark.parametrize("how", DAMAGES)
async def test_a_list_shows_the_others_and_that_one_as_far_as_it_can_be_shown(
    replica: Replica, api: Api, how: str, said: list[tuple[str, dict[str, Any]]]
) -> None:
    whole = [await api.handler("https://example.com/", headers={"x-token": "hidden"}) for _ in range(2)]
    lost = await damaged(replica, api, "https://example.com/lost", how)
    shown = {item["name"]: item for item in await api.pages("/handlers")}
    assert set(shown) == {*whole, lost}
    assert all(shown[name]["headers"] == {"x-token": "***"} and "secrets_lost" not in shown[name] for name in whole)
    assert shown[lost]["secrets_lost"] is True
    assert (shown[lost]["url"], shown[lost]["timeout_seconds"]) == ("https://example.com/lost", 7)
    assert good(await api.get(f"/handlers/{lost}")) == shown[lost]
    assert ("handler_secrets_lost", {"tenant": "default", "handler": lost}) in said


async def test_its_deliveries_fail_with_the_reason_and_those_of_others_do_not(
    replica: Replica, api: Api, handler: Handler, said: list[tuple[str, dict[str, Any]]]
) -> None:
    queue = await api.queue(await damaged(replica, api, handler.url), retry={**AT_ONCE, "max_attempts": 2})
    tasks = [await api.enqueue(queue) for _ in range(3)]
    other = await api.enqueue(await api.queue_to(handler.url))
    assert (await api.ended(other["id"]))["state"] == "succeeded"
    for task in tasks:
        ended = await api.ended(task["id"])
        assert (ended["state"], ended["reason"]) == ("dead", "attempts_exhausted")
        assert ended["last_error"].startswith("what the handler keeps secret cannot be read")
        assert [attempt["outcome"] for attempt in await api.attempts(task["id"])] == ["failed", "failed"]
    assert [request.task for request in handler.requests] == [other["id"]]
    assert "handler_secrets_lost" in [name for name, _ in said]


async def test_a_put_makes_it_whole_again_with_a_new_secret(replica: Replica, api: Api, handler: Handler) -> None:
    name = await damaged(replica, api, handler.url)
    queue = await api.queue(name, retry=AT_ONCE)
    tried = good(await api.post(f"/handlers/{name}/test", json={}))
    assert (tried["outcome"], tried["received"]) == ("failed", None) and "cannot be read" in tried["error"]
    problem(await api.post(f"/handlers/{name}/rotate-secret", json={}), 422, "invalid")
    definition = {"url": handler.url, "headers": {"x-token": "hidden"}, "timeout_seconds": 7}
    plan = good(await api.post("/definitions/plan", json={"handlers": {name: definition}}))
    (change,) = plan["changes"]
    assert change["action"] == "update" and "secret" in {field["field"] for field in change["changes"]}
    saved = good(await api.put(f"/handlers/{name}", json=definition))
    assert saved["secret"].startswith("whsec_") and "secrets_lost" not in saved
    assert good(await api.put(f"/handlers/{name}", json=definition))["secret"] is None
    await api.ended((await api.enqueue(queue))["id"])
    (request,) = handler.requests
    assert request.headers["x-token"] == "hidden"
    await api.delete(f"/queues/{queue}")
    assert (await api.delete(f"/handlers/{name}")).status_code == 204


async def test_a_former_secret_that_cannot_be_read_leaves_the_new_one_signing(
    replica: Replica, api: Api, handler: Handler
) -> None:
    name = await api.handler(handler.url)
    good(await api.post(f"/handlers/{name}/rotate-secret", json={}))
    await replica.sluice.core.db.fetch(
        "update sluice.handlers set sealed_previous_secret = '\\x00' where name = $1", name
    )
    await api.ended((await api.enqueue(await api.queue(name)))["id"])
    (request,) = handler.requests
    assert len(request.headers["webhook-signature"].split()) == 1


BRIDGES: list[dict[str, Any]] = [
    {"kind": "redis_stream", "url": "redis://:hidden@127.0.0.1:9/0", "stream": "s"},
    {
        "kind": "sqs",
        "queue_url": "http://127.0.0.1:9/1/q",
        "region": "eu-west-1",
        "credentials": {"access_key_id": "AKIA", "secret_access_key": "hidden"},
    },
]


@pytest.mark.parametrize("given", BRIDGES, ids=[given["kind"] for given in BRIDGES])
async def test_a_bridge_that_has_lost_its_address_says_so_until_it_is_put_again(
    replica: Replica, api: Api, given: dict[str, Any]
) -> None:
    name = fresh("bridge")
    good(await api.put(f"/handlers/{name}", json=given), 201)
    await replica.sluice.core.db.fetch("update sluice.handlers set sealed_address = '\\x00' where name = $1", name)
    assert good(await api.get(f"/handlers/{name}"))["secrets_lost"] is True
    assert (await api.client.get(f"/ui/handlers/{name}")).status_code == 200
    tried = good(await api.post(f"/handlers/{name}/test", json={}))
    assert (tried["outcome"], tried["received"]) == ("failed", None) and "cannot be read" in tried["error"]
    queue = await api.queue(name, retry={**AT_ONCE, "max_attempts": 1})
    ended = await api.ended((await api.enqueue(queue))["id"])
    assert ended["last_error"].startswith("what the handler keeps secret cannot be read")
    plan = good(await api.post("/definitions/plan", json={"handlers": {name: given}}))
    assert [change["action"] for change in plan["changes"]] == ["update"]
    saved = good(await api.put(f"/handlers/{name}", json=given))
    assert saved["secret"] is None and "secrets_lost" not in saved
    assert good(await api.post(f"/handlers/{name}/test", json={}))["outcome"] == "unreachable"
