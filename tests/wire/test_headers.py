"""What the headers of answers tell caches and browsers."""

from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from app.service import tasks
from app.telemetry.logs import add_request_id
from tests.wire.api import Api, fresh, good, problem, raw

pytestmark = pytest.mark.anyio

LOCAL = "https://example.com/"


async def answers_of_every_kind(api: Api, **headers: str) -> list[httpx2.Response]:
    queue = await api.queue()
    return [
        await api.post(f"/queues/{queue}/tasks", json={"payload": 1}, headers=headers),
        await api.post(f"/queues/{queue}/tasks", json={}, headers=headers),
        await api.post(f"/queues/{queue}/tasks/bulk", json={"tasks": [{"payload": 1}]}, headers=headers),
        await api.get("/queues", headers=headers),
        await api.delete(f"/queues/{fresh('q')}", headers=headers),
        await api.get("/metrics", headers=headers),
        await api.get("/docs", headers=headers),
        await api.get("/openapi.json", headers=headers),
        await api.get("/no-such-route", headers=headers),
    ]


async def test_every_answer_forbids_to_guess_its_type(api: Api) -> None:
    for reply in await answers_of_every_kind(api):
        assert reply.headers.get_list("x-content-type-options") == ["nosniff"], reply.request.url
    _, headers, _ = await raw(api.url, b"NONSENSE\r\n\r\n")
    assert headers["x-content-type-options"] == "nosniff"


async def test_every_answer_has_the_id_of_its_request_and_no_two_have_the_same(api: Api) -> None:
    ids = [reply.headers["x-request-id"] for reply in await answers_of_every_kind(api)]
    ids += [(await raw(api.url, request))[1]["x-request-id"] for request in (b"NONSENSE\r\n\r\n",) * 2]
    assert len(set(ids)) == len(ids) and all(len(one) > 12 for one in ids)


async def test_the_id_that_a_caller_gives_is_kept_if_it_is_sane(api: Api) -> None:
    for sane in ("7", "0193-ab:order/7=+@_.", "x" * 128):
        for reply in await answers_of_every_kind(api, **{"x-request-id": sane}):
            assert reply.headers.get_list("x-request-id") == [sane], reply.request.url
    for insane in ("", "two words", "x" * 129, '"quoted"', "a,b", "\x7f"):
        reply = await api.get("/queues", headers={"x-request-id": insane})
        (made,) = reply.headers.get_list("x-request-id")
        assert made and made != insane
    _, headers, _ = await raw(api.url, b"GET /queues HTTP/1.1\r\nx-request-id: mine\r\na: b\r\nx y: z\r\n\r\n")
    assert headers["x-request-id"] == "mine"


async def test_no_answer_with_a_secret_is_kept_on_its_way(api: Api) -> None:
    name, queue, other = fresh("h"), await api.queue(), fresh("h")
    await api.enqueue(queue)
    document = {"handlers": {other: {"url": LOCAL}}}
    answers = {
        "secret": await api.put(f"/handlers/{name}", json={"url": LOCAL}),
        "whsec_": await api.post(f"/handlers/{name}/rotate-secret"),
        "lease_token": await api.post(f"/queues/{queue}/leases"),
        "secrets": await api.post("/definitions/apply", json=document),
        "webhook-signature": await api.post(f"/handlers/{name}/test"),
    }
    for secret, reply in answers.items():
        assert reply.is_success and secret in reply.text
        assert reply.headers["cache-control"] == "no-store", secret


async def test_the_document_names_where_its_routes_are(api: Api) -> None:
    assert good(await api.get("/openapi.json"))["servers"] == [{"url": api.url}]


async def test_a_failure_is_logged_with_the_id_that_its_caller_was_given(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a bug")

    queue = await api.queue()
    monkeypatch.setattr(tasks, "enqueue", fail)
    monkeypatch.setattr(tasks, "get", fail)
    failing = (
        ("POST", f"/queues/{queue}/tasks", {"payload": 1}),
        ("GET", "/tasks/019aa893-0a00-7238-9930-16b5add0f344", None),
    )
    for method, path, body in failing:
        with capture_logs(processors=[add_request_id]) as said:
            reply = await api.client.request(method, path, json=body)
        problem(reply, 500, "internal")
        (line,) = [line for line in said if line["event"] == "request_failed"]
        assert line["request_id"] == reply.headers["x-request-id"]
