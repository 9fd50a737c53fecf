"""What the headers of answers tell caches and browsers."""

import pytest

from tests.wire.api import Api, fresh, good, raw

pytestmark = pytest.mark.anyio

LOCAL = "https://example.com/"


async def test_every_answer_forbids_to_guess_its_type(api: Api) -> None:
    queue = await api.queue()
    for reply in (
        await api.post(f"/queues/{queue}/tasks", json={"payload": 1}),
        await api.post(f"/queues/{queue}/tasks", json={}),
        await api.post(f"/queues/{queue}/tasks/bulk", json={"tasks": [{"payload": 1}]}),
        await api.get("/queues"),
        await api.delete(f"/queues/{fresh('q')}"),
        await api.get("/metrics"),
        await api.get("/docs"),
        await api.get("/openapi.json"),
        await api.get("/no-such-route"),
    ):
        assert reply.headers.get_list("x-content-type-options") == ["nosniff"], reply.request.url
    _, headers, _ = await raw(api.url, b"NONSENSE\r\n\r\n")
    assert headers["x-content-type-options"] == "nosniff"


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
