"""`payload_schema` of queues: what is taken as a schema, and what it says of payloads."""

import asyncio
import json
import random
import time
from typing import Any

import httpx2
import pytest

from tests.wire.api import Api, fresh, good, problem

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

MAIL: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["to"],
    "properties": {"to": {"type": "string", "pattern": "^[^@]+@[^@]+$"}, "copies": {"$ref": "#/$defs/count"}},
    "additionalProperties": False,
    "$defs": {"count": {"type": "integer", "minimum": 1.0}},
}
GOOD = {"to": "a@b"}
TREE = {"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}}
CODE = "payload_schema_mismatch"


def doubling(reference: str, **anchor: str) -> dict[str, Any]:
    """40 definitions, each of which applies the next one twice."""
    definitions: dict[str, Any] = {
        f"d{n}": {"allOf": [{"$ref": reference + f"d{n + 1}"}] * 2} | dict.fromkeys(anchor, f"d{n}") for n in range(40)
    }
    definitions["d40"] = {"type": "integer"} | dict.fromkeys(anchor, "d40")
    return {"$ref": reference + "d0", "$defs": definitions}


async def put(api: Api, queue: str, schema: Any, **fields: Any) -> httpx2.Response:
    return await api.put(f"/queues/{queue}", json={"payload_schema": schema, **fields})


async def post(api: Api, queue: str, payload: Any, **fields: Any) -> httpx2.Response:
    return await api.post(f"/queues/{queue}/tasks", json={"payload": payload, **fields})


@pytest.mark.parametrize("schema", [MAIL, TREE, {}, True, False, {"x-own": [1, 1.0, "1"], "format": "nonsense"}])
async def test_a_schema_is_shown_as_it_was_given(api: Api, schema: Any) -> None:
    name = fresh("q")
    made = await put(api, name, schema)
    assert json.dumps(good(made, 201)["payload_schema"]) == json.dumps(schema)
    read = await api.get(f"/queues/{name}")
    assert good(read) == made.json() and read.headers["etag"] == made.headers["etag"]
    [listed] = [queue for queue in await api.pages("/queues", limit=200) if queue["name"] == name]
    assert json.dumps(listed["payload_schema"]) == json.dumps(schema)


async def test_a_schema_belongs_to_the_definition_and_its_etag(api: Api) -> None:
    name = await api.queue()
    tags = [
        (await put(api, name, schema)).headers["etag"] for schema in (None, {"const": 1}, {"const": True}, {}, None)
    ]
    assert len(set(tags)) == 4 and tags[0] == tags[-1]
    stale = await api.put(f"/queues/{name}", json={"payload_schema": {}}, headers={"if-match": tags[1]})
    problem(stale, 412, "etag_mismatch")
    good(await put(api, name, {"const": 1}))
    good(await put(api, name, {"const": True}))
    problem(await post(api, name, 1), 422, CODE, "/payload")
    await api.enqueue(name, True)
    good(await api.put(f"/queues/{name}", json={}))
    await api.enqueue(name, 1)


NESTED: dict[str, Any] = {}
for _ in range(70):
    NESTED = {"not": NESTED}


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ("object", ""),
        (5, ""),
        ([], ""),
        ({"type": "objekt"}, "/type"),
        ({"properties": {"a/b": {"minimum": "1"}}}, "/properties/a~1b/minimum"),
        ({"required": "to"}, "/required"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "/$schema"),
        ({"$schema": "https://json-schema.org/draft/2019-09/schema"}, "/$schema"),
        ({"$schema": "https://example.com/own"}, "/$schema"),
        ({"$schema": 5}, "/$schema"),
        ({"items": {"$schema": "http://json-schema.org/draft-04/schema#"}}, "/items/$schema"),
        ({"$ref": "http://127.0.0.1/schema.json"}, "/$ref"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "/properties/a/$ref"),
        ({"$ref": "other.json"}, "/$ref"),
        ({"$dynamicRef": "https://example.com/x#y"}, "/$dynamicRef"),
        ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, "/$ref"),
        ({"$id": "https://example.com/", "$defs": {"a": {"$id": "a"}}, "$ref": "file:///etc/passwd"}, ""),
        ({"items": {"$ref": "#/$defs/nobody"}}, "/items/$ref"),
        ({"items": {"$ref": "#nobody"}}, "/items/$ref"),
        ({"$ref": "#"}, ""),
        ({"$defs": {"a": {"$anchor": "x", "anyOf": [{"$ref": "#x"}]}}, "$ref": "#x"}, "/$defs/a"),
        ({"pattern": "(a)\\1"}, "/pattern"),
        ({"pattern": "(?=a)"}, "/pattern"),
        ({"pattern": "("}, "/pattern"),
        ({"pattern": "((a{1000}){1000}){1000}"}, "/pattern"),
        ({"patternProperties": {"(x{1000}){1000}": True}}, "/patternProperties/(x{1000}){1000}"),
        ({"allOf": [{"pattern": f"^.{{{n}}}$"} for n in range(1000, 1400)]}, ""),
        ({"description": "x" * 65_536}, ""),
        (NESTED, ""),
    ],
)
async def test_what_is_no_schema_or_a_hostile_one_is_refused_and_nothing_is_stored(
    api: Api, schema: Any, pointer: str
) -> None:
    name = fresh("q")
    [error] = problem(await put(api, name, schema), 422, "invalid")["errors"]
    assert error["pointer"].startswith("/payload_schema")
    if pointer != "/$defs/a":  # of a circle any place may be named
        assert error["pointer"] == "/payload_schema" + pointer
    problem(await api.get(f"/queues/{name}"), 404, "queue_not_found")


@pytest.mark.parametrize("schema", [doubling("#/$defs/"), doubling("#", **{"$anchor": ""})])
async def test_a_schema_that_expands_without_end_is_refused(api: Api, schema: Any) -> None:
    [error] = problem(await put(api, fresh("q"), schema), 422, "invalid")["errors"]
    assert error["pointer"].startswith("/payload_schema") and "expands" in error["detail"]


async def test_a_number_beyond_every_range_is_no_part_of_a_schema(api: Api) -> None:
    reply = await api.put(
        f"/queues/{fresh('q')}",
        content=b'{"payload_schema": {"maximum": 1e400}}',
        headers={"content-type": "application/json"},
    )
    problem(reply, 422, "invalid", "/payload_schema")


async def test_what_only_looks_like_a_reference_is_data(api: Api) -> None:
    schema = {"properties": {"$ref": {"type": "string"}}, "enum": [{"$ref": "http://127.0.0.1/"}, {"$schema": "x"}]}
    queue = await api.queue(payload_schema=schema)
    await api.enqueue(queue, {"$ref": "http://127.0.0.1/"})
    problem(await post(api, queue, {"$ref": 5}), 422, CODE)


async def test_references_among_the_parts_of_a_schema_are_followed(api: Api) -> None:
    schema = {
        "$id": "https://example.com/list",
        "items": {"$ref": "item"},
        "$defs": {"item": {"$id": "item", "type": "integer"}},
    }
    queue = await api.queue(payload_schema=schema)
    await api.enqueue(queue, [1, 2])
    problem(await post(api, queue, [1, "2"]), 422, CODE, "/payload/1")


async def test_a_payload_that_fits_is_taken_and_another_refused_with_pointers(api: Api) -> None:
    queue = await api.queue(payload_schema=MAIL)
    await api.enqueue(queue, GOOD | {"copies": 2})
    found = problem(await post(api, queue, {"to": "nobody", "copies": 0.5, "bcc": 1}), 422, CODE)
    assert {error["pointer"] for error in found["errors"]} == {"/payload", "/payload/to", "/payload/copies"}
    assert "nobody" not in json.dumps(found["errors"])
    problem(await post(api, queue, None), 422, CODE, "/payload")
    problem(await post(api, queue, {}), 422, CODE, "/payload")
    assert len(await api.pages("/tasks", queue=queue)) == 1


async def test_schemas_that_are_not_cheap_say_the_same(api: Api) -> None:
    queue = await api.queue(payload_schema=TREE)
    await api.enqueue(queue, {"left": {"right": {}}})
    problem(await post(api, queue, {"left": {"a/b": 1, "right": {"left": 5}}}), 422, CODE, "/payload/left/right/left")
    deep = b'{"payload":' + b'{"left":' * 120 + b"{}" + b"}" * 121
    good(await api.enqueue_bytes(queue, deep), 201)


async def test_a_schema_that_doubles_at_each_level_of_a_payload_is_answered_all_the_same(api: Api) -> None:
    twice = [{"properties": {"a": {"$ref": "#"}}, "title": title} for title in ("first", "second")]
    queue = await api.queue(payload_schema={"allOf": twice, "properties": {"b": False}})
    body = b'{"payload":' + b'{"a":' * 100 + b"%s" + b"}" * 101
    good(await api.enqueue_bytes(queue, body % b"1"), 201)
    [error] = problem(await api.enqueue_bytes(queue, body % b'{"b":1}'), 422, CODE)["errors"]
    assert error["pointer"] == "/payload" + "/a" * 100 + "/b"


async def test_not_every_violation_of_many_is_named(api: Api) -> None:
    queue = await api.queue(payload_schema={"items": {"type": "integer"}})
    assert len(problem(await post(api, queue, ["x"] * 100), 422, CODE)["errors"]) == 20
    assert len(problem(await post(api, queue, ["x"] * 100_000), 422, CODE)["errors"]) == 1
    long = {"k" * 5_000: {"n": "x"}}
    keyed = await api.queue(payload_schema={"additionalProperties": {"additionalProperties": {"type": "integer"}}})
    [error] = problem(await post(api, keyed, long), 422, CODE)["errors"]
    assert error["pointer"] == "/payload"


async def test_the_payload_still_travels_byte_for_byte(api: Api) -> None:
    queue = await api.queue(payload_schema={"type": "object"})
    reply = await api.enqueue_bytes(queue, b'{"payload": { "b":1.50,"a" : 1e2 }}')
    assert reply.status_code == 201 and b'{ "b":1.50,"a" : 1e2 }' in reply.content


async def test_items_of_a_bulk_are_checked_one_by_one(api: Api) -> None:
    queue = await api.queue(payload_schema=MAIL)
    tasks = [{"payload": GOOD}, {"payload": {"to": 5}}, {"payload": GOOD}, {"payload": 1}]
    results = good(await api.post(f"/queues/{queue}/tasks/bulk", json={"tasks": tasks}))["results"]
    assert [result["status"] for result in results] == [201, 422, 201, 422]
    shown = [result["problem"] for result in results if "problem" in result]
    assert [found["code"] for found in shown] == [CODE, CODE]
    assert [found["errors"][0]["pointer"] for found in shown] == ["/tasks/1/payload/to", "/tasks/3/payload"]
    atomic = await api.post(f"/queues/{queue}/tasks/bulk", json={"tasks": tasks, "atomic": True})
    problem(atomic, 422, "invalid", "/tasks/1/payload/to", "/tasks/3/payload")
    assert len(await api.pages("/tasks", queue=queue)) == 2


async def test_a_patch_is_checked_if_it_has_a_payload(api: Api) -> None:
    queue = await api.queue(payload_schema=MAIL)
    task = await api.enqueue(queue, GOOD, delay_seconds=600)
    path = f"/tasks/{task['id']}"
    good(await api.client.patch(path, json={"priority": 5}))
    problem(await api.client.patch(path, json={"payload": {"to": 5}}), 422, CODE, "/payload/to")
    problem(await api.client.patch(path, json={"payload": None}), 422, CODE, "/payload")
    assert (await api.task(task["id"]))["payload"] == GOOD
    assert good(await api.client.patch(path, json={"payload": {"to": "c@d"}}))["payload"] == {"to": "c@d"}


async def test_a_changed_schema_holds_at_once_on_every_replica(api: Api, other: Api) -> None:
    queue = await api.queue()
    for side in (api, other):
        await side.enqueue(queue, 1)
    for schema, fits, fails in (({"type": "string"}, "x", 1), ({"type": "integer"}, 1, "x"), (False, None, 1)):
        good(await put(api, queue, schema))
        for side in (other, api):
            problem(await post(side, queue, fails), 422, CODE, "/payload")
            if fits is not None:
                await side.enqueue(queue, fits)
        bulk = await other.post(f"/queues/{queue}/tasks/bulk", json={"tasks": [{"payload": fails}]})
        assert good(bulk)["results"][0]["status"] == 422
    good(await put(api, queue, None))
    problem(await post(other, queue, 1, expires_at="2020-01-01T00:00:00Z"), 422, "invalid", "/expires_at")
    good(await put(other, queue, True))
    await api.enqueue(queue, 1)


async def test_tasks_from_before_a_schema_and_their_replays_stay(api: Api) -> None:
    queue = await api.queue()
    first = good(await post(api, queue, 1, idempotency_key="k"), 201)
    good(await put(api, queue, {"type": "string"}))
    replay = await post(api, queue, 1, idempotency_key="k")
    assert good(replay) == first and replay.headers["idempotent-replayed"] == "true"
    problem(await post(api, queue, 2, idempotency_key="k"), 422, "idempotency_mismatch")
    problem(await post(api, queue, 1, idempotency_key="new"), 422, CODE, "/payload")
    results = good(
        await api.post(f"/queues/{queue}/tasks/bulk", json={"tasks": [{"payload": 1, "idempotency_key": "k"}]})
    )["results"]
    assert results == [{"status": 200, "id": first["id"]}]


async def test_a_key_in_a_header_replays_across_a_schema_too(api: Api) -> None:
    queue = await api.queue()
    body = b'{"payload": 1}'
    first = good(await api.enqueue_bytes(queue, body, {"idempotency-key": "k"}), 201)
    good(await put(api, queue, {"type": "string"}))
    assert good(await api.enqueue_bytes(queue, body, {"idempotency-key": "k"})) == first


SLOW: dict[str, tuple[Any, Any]] = {
    "a pattern with thousands of states": (
        {"allOf": [{"pattern": f"(a|b)*a(a|b){{{n}}}c"} for n in range(1000, 1010)]},
        "".join(random.Random(1).choices("ab", k=900_000)),
    ),
    "definitions that double among schemas with ids": (
        doubling("#/$defs/") | {"$id": "https://example.com/", "not": {"$id": "other", "type": "null"}},
        1,
    ),
}


@pytest.mark.parametrize(
    "case", [next(iter(SLOW)), *(pytest.param(case, marks=pytest.mark.ci) for case in [*SLOW][1:])]
)
async def test_a_check_that_takes_too_long_is_cut_and_holds_up_nobody(api: Api, case: str) -> None:
    schema, payload = SLOW[case]
    queue, free = await api.queue(payload_schema=schema), await api.queue(payload_schema=MAIL)
    slow = asyncio.create_task(post(api, queue, payload))
    waits = []
    while not slow.done():
        began = time.monotonic()
        await api.enqueue(free, GOOD)
        waits.append(time.monotonic() - began)
    found = problem(await slow, 422, CODE, "/payload")
    assert "could not be checked" in found["detail"] and "within" in found["detail"]
    assert max(waits) < 1.0, waits
    assert (await post(api, await api.queue(payload_schema=TREE), {})).status_code == 201


@pytest.mark.parametrize(
    ("schema", "payload"),
    [
        ({"uniqueItems": True, "items": {"uniqueItems": True}}, [[str(n)] for n in range(90_000)]),
        ({"items": {"type": "array", "items": {"type": "string", "minLength": 1}}}, [[str(n)] for n in range(90_000)]),
        (
            {"unevaluatedProperties": False, "anyOf": [{"additionalProperties": True}]},
            {str(n): n for n in range(60_000)},
        ),
        ({"contains": {"const": 89_999}, "minItems": 5}, list(range(90_000))),
    ],
)
async def test_large_payloads_are_checked_beside_other_work(api: Api, schema: Any, payload: Any) -> None:
    queue = await api.queue(payload_schema=schema)
    began = time.monotonic()
    assert (await post(api, queue, payload)).status_code == 201
    assert time.monotonic() - began < 5
