"""Handlers and sources of kind sqs as they are defined: what is refused, at which pointer, and what is never shown."""

import importlib.util
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.sluices import Replica
from tests.wire.api import Api, fresh, good, problem

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_source_left")]

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
CREDENTIALS = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": SECRET}
ADDRESS = {
    "kind": "sqs",
    "queue_url": "http://127.0.0.1:9/123456789012/orders",
    "region": "eu-central-1",
    "credentials": CREDENTIALS,
}
BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"queue_url": None}, "invalid", "/queue_url"),
    ({"queue_url": ""}, "invalid", "/queue_url"),
    ({"queue_url": "sqs://q/1/q"}, "invalid", "/queue_url"),
    ({"queue_url": "https://a:b@sqs.eu-central-1.amazonaws.com/1/q"}, "invalid", "/queue_url"),
    ({"queue_url": "https://sqs.eu-central-1.amazonaws.com"}, "invalid", "/queue_url"),
    ({"queue_url": "https://sqs.eu-central-1.amazonaws.com/1/q\r\nx: y"}, "invalid", "/queue_url"),
    ({"queue_url": "https://" + "a" * 5000 + "/1/q"}, "invalid", "/queue_url"),
    ({"queue_url": 7}, "invalid", "/queue_url"),
    ({"queue_url": "http://169.254.169.254/latest/meta-data"}, "egress_denied", "/queue_url"),
    ({"endpoint_url": "http://169.254.169.254"}, "egress_denied", "/endpoint_url"),
    ({"endpoint_url": "http://[fd00:ec2::254]"}, "egress_denied", "/endpoint_url"),
    ({"endpoint_url": "http://10.1.2.3"}, "egress_denied", "/endpoint_url"),
    ({"endpoint_url": "http://127.0.0.1:9/path"}, "invalid", "/endpoint_url"),
    ({"endpoint_url": "ftp://127.0.0.1"}, "invalid", "/endpoint_url"),
    ({"region": None}, "invalid", "/region"),
    ({"region": "eu\r\nx: y"}, "invalid", "/region"),
    ({"region": "EU/../x"}, "invalid", "/region"),
    ({"region": "r" * 5000}, "invalid", "/region"),
    ({"credentials": "AKIA"}, "invalid", "/credentials"),
    ({"credentials": {}}, "invalid", "/credentials/access_key_id"),
    ({"credentials": {**CREDENTIALS, "access_key_id": ""}}, "invalid", "/credentials/access_key_id"),
    ({"credentials": {**CREDENTIALS, "access_key_id": "A/b, c"}}, "invalid", "/credentials/access_key_id"),
    ({"credentials": {**CREDENTIALS, "access_key_id": "a\nb"}}, "invalid", "/credentials/access_key_id"),
    ({"credentials": {**CREDENTIALS, "secret_access_key": "ä" * 10}}, "invalid", "/credentials/secret_access_key"),
    ({"credentials": {**CREDENTIALS, "secret_access_key": "x" * 9999}}, "invalid", "/credentials/secret_access_key"),
    ({"credentials": {**CREDENTIALS, "session_token": "a b"}}, "invalid", "/credentials/session_token"),
    ({"credentials": {**CREDENTIALS, "session_token": 7}}, "invalid", "/credentials/session_token"),
    ({"credentials": {**CREDENTIALS, "role_arn": "x"}}, "invalid", "/credentials/role_arn"),
    ({"stream": "s"}, "invalid", "/stream"),
    ({"url": "redis://127.0.0.1"}, "invalid", "/url"),
    ({"kind": "kafka"}, "invalid", "/kind"),
]


@pytest.mark.parametrize(("given", "code", "where"), BAD)
@pytest.mark.parametrize("noun", ["handlers", "sources"])
async def test_what_cannot_be_an_address_is_refused_at_its_pointer(
    api: Api, noun: str, given: dict[str, Any], code: str, where: str
) -> None:
    name = fresh("x")
    body = {**ADDRESS, **({"queue": await api.queue()} if noun == "sources" else {}), **given}
    refused = await api.put(
        f"/{noun}/{name}", json={field: value for field, value in body.items() if value is not None}
    )
    found = problem(refused, 422, code)
    assert where in [error["pointer"] for error in found["errors"]], found
    assert SECRET not in refused.text
    assert (await api.get(f"/{noun}/{name}")).status_code == 404


@pytest.mark.parametrize("noun", ["handlers", "sources"])
async def test_without_credentials_and_without_the_library_it_is_refused_with_the_name_of_the_extra(
    api: Api, noun: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "botocore" else found(name, *more)
    )
    name, body = fresh("x"), dict(ADDRESS)
    if noun == "sources":
        body["queue"] = await api.queue()
    absent = {field: value for field, value in body.items() if field != "credentials"}
    for without in (absent, {**absent, "credentials": None}):
        refused = problem(await api.put(f"/{noun}/{name}", json=without), 422, "bridge_unavailable")
        assert "sluice-queue[aws]" in refused["detail"]
    good(await api.put(f"/{noun}/{name}", json=body), 201)
    good(await api.put(f"/{noun}/{name}", json=absent))  # keeps those it has
    problem(await api.put(f"/{noun}/{name}", json={**absent, "credentials": None}), 422, "bridge_unavailable")
    assert (await api.delete(f"/{noun}/{name}")).status_code == 204


@pytest.mark.parametrize("noun", ["handlers", "sources"])
async def test_a_manager_cannot_use_the_credentials_of_the_replicas(
    start_guarded: Callable[..., Awaitable[Replica]], tenant: Callable[..., Awaitable[Api]], noun: str
) -> None:
    """Neither at first, nor by changing where an operator's definition leads, nor through a document; one that changes nothing may
    have it."""
    replica = await start_guarded()
    manager, operator = await tenant(replica, "default"), await tenant(replica, "default", "operate")
    queue = await manager.queue()
    more = {"queue": queue} if noun == "sources" else {}
    absent = {field: value for field, value in {**ADDRESS, **more}.items() if field != "credentials"}
    problem(await manager.put(f"/{noun}/x", json=absent), 403, "forbidden")
    good(await operator.put(f"/{noun}/x", json=absent), 201)
    moved = {**absent, "queue_url": "http://127.0.0.1:10/1/mine"}
    problem(await manager.put(f"/{noun}/x", json=moved), 403, "forbidden")
    problem(await manager.post("/definitions/apply", json={noun: {"x": moved}}), 403, "forbidden")
    (change,) = good(await manager.post("/definitions/apply", json={noun: {"x": absent}}))["changes"]
    assert change["action"] == "unchanged"
    assert good(await operator.get(f"/{noun}/x"))["queue_url"] == absent["queue_url"]


@pytest.mark.parametrize("noun", ["handlers", "sources"])
async def test_a_manager_cannot_use_them_in_place_of_credentials_that_are_lost(
    start_guarded: Callable[..., Awaitable[Replica]], tenant: Callable[..., Awaitable[Api]], noun: str
) -> None:
    replica = await start_guarded()
    manager = await tenant(replica, "default")
    body = {**ADDRESS, **({"queue": await manager.queue()} if noun == "sources" else {})}
    good(await manager.put(f"/{noun}/x", json=body), 201)
    column = "sealed" if noun == "sources" else "sealed_address"
    await replica.sluice.core.db.fetch(f"update sluice.{noun} set {column} = '\\x00' where name = 'x'")
    absent = {field: value for field, value in body.items() if field != "credentials"}
    problem(await manager.put(f"/{noun}/x", json=absent), 403, "forbidden")
    problem(await manager.post("/definitions/apply", json={noun: {"x": absent}}), 403, "forbidden")
    good(await manager.put(f"/{noun}/x", json=body))


@pytest.mark.parametrize("noun", ["handlers", "sources"])
async def test_another_tenant_sees_nothing_of_it(
    start_guarded: Callable[..., Awaitable[Replica]], tenant: Callable[..., Awaitable[Api]], noun: str
) -> None:
    replica = await start_guarded()
    owner, other = await tenant(replica, "default"), await tenant(replica, "other")
    more = {"queue": await owner.queue()} if noun == "sources" else {}
    made = await owner.put(f"/{noun}/x", json={**ADDRESS, **more})
    assert made.status_code == 201 and SECRET not in made.text and "AKIA" not in made.text
    for call in (other.get(f"/{noun}/x"), other.delete(f"/{noun}/x"), other.post(f"/{noun}/x/test")):
        assert (await call).status_code == 404
    assert good(await other.get(f"/{noun}"))["items"] == []
    audit = await (await tenant(replica, "default", "operate")).get("/audit")
    assert audit.status_code == 200 and SECRET not in audit.text
