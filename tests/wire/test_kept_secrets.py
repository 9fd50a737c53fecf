"""What a handler or source of each kind keeps, shows and changes when it is defined again, by a PUT or a document."""

import json
from typing import Any

import pytest

from tests.wire.api import Api, fresh, good, problem

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_source_left")]

SECRET = "hush-hush"
SQS = {
    "kind": "sqs",
    "queue_url": "http://127.0.0.1:9/1/q",
    "region": "eu-west-1",
    "credentials": {"access_key_id": "AKIA", "secret_access_key": SECRET},
}
REDIS = {"kind": "redis_stream", "url": f"redis://:{SECRET}@127.0.0.1:9/0", "stream": "s"}
SEALED = {"sqs": "credentials", "redis_stream": "url"}


@pytest.mark.parametrize("given", [SQS, REDIS], ids=list(SEALED))
@pytest.mark.parametrize("noun", ["handlers", "sources"])
async def test_what_is_left_out_is_kept(api: Api, noun: str, given: dict[str, Any]) -> None:
    name, place = fresh("x"), SEALED[given["kind"]]
    if noun == "sources":
        given = {**given, "queue": await api.queue(), **({"group": "g"} if place == "url" else {})}
    absent = {field: value for field, value in given.items() if field != place}
    made = await api.put(f"/{noun}/{name}", json=given)
    assert made.status_code == 201 and SECRET not in made.text
    plan = await api.post("/definitions/plan", json={noun: {name: absent}})
    assert [change["action"] for change in good(plan)["changes"]] == ["unchanged"], plan.text
    again = await api.put(f"/{noun}/{name}", json=absent)
    assert (again.status_code, again.headers["etag"]) == (200, made.headers["etag"]), again.text
    if place == "url":
        problem(await api.put(f"/{noun}/{fresh('new')}", json=absent), 422, "invalid", "/url")


async def test_a_handler_of_any_kind_can_be_shown_and_become_one_of_another(api: Api) -> None:
    name = fresh("x")
    good(await api.put(f"/handlers/{name}", json=SQS), 201)
    for other in ({"url": "http://127.0.0.1:9/"}, REDIS, SQS):
        plan = await api.post("/definitions/plan", json={"handlers": {name: other}})
        assert [change["action"] for change in good(plan)["changes"]] == ["update"]
        good(await api.put(f"/handlers/{name}", json=other))
        after = await api.post("/definitions/plan", json={"handlers": {name: other}})
        assert [change["action"] for change in good(after)["changes"]] == ["unchanged"], after.text
        tried = await api.post(f"/handlers/{name}/test")
        assert good(tried)["outcome"] == "unreachable"
        pages = [await api.client.get(f"/ui/handlers/{name}"), await api.client.get("/ui/handlers")]
        assert [page.status_code for page in pages] == [200, 200]
        audit = await api.client.get("/audit", params={"noun": "handler"})
        said = [shown.text for shown in (plan, after, tried, audit, *pages)]
        assert SECRET not in json.dumps(said)
