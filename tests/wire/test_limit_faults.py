"""Bad input of limits, rates and keys: each field and each conflict is refused with a pointer, and nothing is half-changed."""

from typing import Any

import pytest

from app.edge.pages import binding, next_cursor
from tests.sluices import Replica
from tests.wire.api import Api, fresh, good, problem, raw

pytestmark = pytest.mark.anyio

WIDE = "ä" * 65
"""130 bytes in 65 characters."""
Faults = tuple[str, ...]

RATES: list[tuple[Any, Faults]] = [
    ({}, ("/limit",)),
    ({"limit": 0}, ("/limit",)),
    ({"limit": -1}, ("/limit",)),
    ({"limit": "5"}, ("/limit",)),
    ({"limit": True}, ("/limit",)),
    ({"limit": 2e9}, ("/limit",)),
    ({"limit": 1, "period_seconds": 0}, ("/period_seconds",)),
    ({"limit": 1, "period_seconds": 1e9}, ("/period_seconds",)),
    ({"limit": 1, "burst": 0}, ("/burst",)),
    ({"limit": 1, "burst": 1.5}, ("/burst",)),
    ({"limit": 5e-324}, ("",)),
    ({"limit": 1, "burst": 1_000_000_000}, ("",)),
    ({"limit": 1, "period_seconds": 5e-324}, ("/period_seconds",)),
    ({"limit": 1, "per": 60}, ("/per",)),
    ({"limit": 0, "period_seconds": 0, "burst": 0}, ("/limit", "/period_seconds", "/burst")),
    (5, ("",)),
    ([], ("",)),
]
LIMITS: list[tuple[Any, Faults]] = [
    ({"max_concurrency": 0}, ("/max_concurrency",)),
    ({"max_concurrency": 1.5}, ("/max_concurrency",)),
    ({"max_concurrency": 100_001}, ("/max_concurrency",)),
    ({"keyed": "yes"}, ("/keyed",)),
    ({"keyed": None}, ("/keyed",)),
    ({"description": "x" * 1001}, ("/description",)),
    ({"description": "\x00"}, ("/description",)),
    ({"max": 1}, ("/max",)),
    ({"weight": 2}, ("/weight",)),
    *(({"rate": rate}, tuple("/rate" + fault for fault in faults)) for rate, faults in RATES),
]
KEYS: list[tuple[Any, Faults]] = [
    ({"max_concurrency": 0}, ("/max_concurrency",)),
    ({"max_depth": 0}, ("/max_depth",)),
    ({"ordered": 1}, ("/ordered",)),
    ({"required": "no"}, ("/required",)),
    ({"ordered": True, "max_concurrency": 2}, ("/max_concurrency",)),
    ({"weight": 2}, ("/weight",)),
    ({"rate": {"limit": 0}}, ("/rate/limit",)),
    (7, ("",)),
]
USES: list[tuple[Any, Faults]] = [
    ("api", ("",)),
    ([5], ("/0",)),
    ([{}], ("/0/name",)),
    ([{"name": "No Name"}], ("/0/name",)),
    ([{"name": "none"}], ("/0/name",)),
    ([{"name": "plain", "cost": 0}], ("/0/cost",)),
    ([{"name": "plain", "cost": 1_000_001}], ("/0/cost",)),
    ([{"name": "plain", "cost": 1.5}], ("/0/cost",)),
    ([{"name": "plain", "key": "a"}], ("/0/key",)),
    ([{"name": "keyed", "key": ""}], ("/0/key",)),
    ([{"name": "keyed", "key": WIDE}], ("/0/key",)),
    ([{"name": "keyed", "key": "\x00"}], ("/0/key",)),
    ([{"name": "paced", "cost": 11}], ("/0/cost",)),
    ([{"name": "paced"}, {"name": "paced", "cost": 2}], ("/1",)),
    ([{"name": "plain", "max": 1}], ("/0/max",)),
    ([{"name": "plain"}] * 5, ("",)),
]


@pytest.fixture(scope="module")
async def names(shared: Replica) -> dict[str, str]:
    """Limits: plain, keyed, paced (a burst of 10), and three more."""
    api = Api(shared.client, shared.url)
    made = {noun: fresh(noun) for noun in ("plain", "keyed", "paced", "other1", "other2", "other3")}
    for noun, fields in {"keyed": {"keyed": True}, "paced": {"rate": {"limit": 100}}}.items():
        good(await api.put(f"/limits/{made[noun]}", json=fields), 201)
    for noun in made.keys() - {"keyed", "paced"}:
        good(await api.put(f"/limits/{made[noun]}", json={"max_concurrency": 9}), 201)
    return made


def named(value: Any, names: dict[str, str]) -> Any:
    """The value with the test's own limits."""
    if isinstance(value, list):
        return [named(one, names) for one in value]
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return value | {"name": names.get(value["name"], value["name"])}
    return value


@pytest.mark.parametrize(("body", "faults"), LIMITS)
async def test_a_limit_with_a_fault_is_not_stored(api: Api, body: Any, faults: Faults) -> None:
    name = fresh("l")
    problem(await api.put(f"/limits/{name}", json=body), 422, "invalid", *faults)
    problem(await api.get(f"/limits/{name}"), 404, "limit_not_found")


@pytest.mark.parametrize(("rate", "faults"), RATES)
async def test_a_rate_with_a_fault_is_refused_wherever_it_stands(api: Api, rate: Any, faults: Faults) -> None:
    found = tuple("/rate" + fault for fault in faults)
    queue = fresh("q")
    problem(await api.put(f"/queues/{queue}", json={"rate": rate}), 422, "invalid", *found)
    problem(await api.get(f"/queues/{queue}"), 404, "queue_not_found")
    body = {"url": "https://example.com/", "rate": rate}
    problem(await api.put(f"/handlers/{fresh('h')}", json=body), 422, "invalid", *found)
    problem(await api.put("/limits", json={"rate": rate}), 422, "invalid", *found)


@pytest.mark.parametrize(("key", "faults"), KEYS)
async def test_a_queue_with_a_fault_in_its_key_stays_as_it_was(api: Api, key: Any, faults: Faults) -> None:
    queue = await api.queue(key={"max_concurrency": 3})
    before = good(await api.get(f"/queues/{queue}"))
    found = tuple("/key" + fault for fault in faults)
    problem(await api.put(f"/queues/{queue}", json={"max_depth": 5, "key": key}), 422, "invalid", *found)
    assert good(await api.get(f"/queues/{queue}")) == before


@pytest.mark.parametrize(("uses", "faults"), USES)
async def test_faulty_limits_are_refused_in_queues_handlers_tasks_patches_and_schedules(
    api: Api, names: dict[str, str], uses: Any, faults: Faults
) -> None:
    given, found = named(uses, names), tuple("/limits" + fault for fault in faults)
    queue = await api.queue()
    before = good(await api.get(f"/queues/{queue}"))
    problem(await api.put(f"/queues/{queue}", json={"max_depth": 5, "limits": given}), 422, "invalid", *found)
    assert good(await api.get(f"/queues/{queue}")) == before
    body = {"url": "https://example.com/", "limits": given}
    problem(await api.put(f"/handlers/{fresh('h')}", json=body), 422, "invalid", *found)
    task = {"payload": 1, "key": "k", "limits": given}
    problem(await api.post(f"/queues/{queue}/tasks", json=task), 422, "invalid", *found)
    [result] = good(await api.post(f"/queues/{queue}/tasks/bulk", json={"tasks": [task]}))["results"]
    pointers = [error["pointer"] for error in result["problem"]["errors"]]
    assert (result["status"], pointers) == (422, ["/tasks/0" + fault for fault in found])
    assert good(await api.get(f"/queues/{queue}/stats"))["counts"]["ready"] == 0
    stored = await api.enqueue(queue, key="k")
    patched = await api.client.patch(f"/tasks/{stored['id']}", json={"priority": 1, "limits": given})
    problem(patched, 422, "invalid", *found)
    assert (await api.task(stored["id"])) == stored
    schedule = {"queue": queue, "payload": 1, "cron": "@daily", "key": "k", "limits": given}
    problem(await api.put(f"/schedules/{fresh('s')}", json=schedule), 422, "invalid", *found)


@pytest.mark.parametrize("key", ["", "x" * 129, WIDE, "a\x00b", 5, True, [], {}])
async def test_a_key_is_1_to_128_bytes_of_text(api: Api, key: Any) -> None:
    queue = await api.queue()
    problem(await api.post(f"/queues/{queue}/tasks", json={"payload": 1, "key": key}), 422, "invalid", "/key")
    waiting = await api.enqueue(queue)
    problem(await api.client.patch(f"/tasks/{waiting['id']}", json={"key": key}), 422, "invalid", "/key")
    assert (await api.task(waiting["id"]))["key"] is None


async def test_a_key_of_exactly_128_bytes_is_taken(api: Api) -> None:
    queue = await api.queue()
    for key in ("x" * 128, "ä" * 64, " ", "\n", "/", "%2f", "task"):
        assert (await api.enqueue(queue, key=key))["key"] == key


async def test_keys_in_paths_follow_the_same_rule(api: Api, names: dict[str, str]) -> None:
    queue = await api.queue()
    for path in (f"/limits/{names['keyed']}/keys/", f"/queues/{queue}/keys/"):
        for key in ("x" * 129, "%C3%A4" * 65, "%00"):
            problem(await api.get(path + key), 422, "invalid", "/key")
            problem(await api.put(path + key, json={"max_concurrency": 1}), 422, "invalid", "/key")
            problem(await api.post(f"{path}{key}/pause"), 422, "invalid", "/key")
        problem(await api.put(path + "k", json={"max_concurrency": 0}), 422, "invalid", "/max_concurrency")
        problem(await api.put(path + "k", json={"rate": {"limit": 0}}), 422, "invalid", "/rate/limit")
        problem(await api.put(path + "k", json={"max_depth": 1}), 422, "invalid", "/max_depth")
    problem(await api.put(f"/limits/{names['keyed']}/keys/k", json={"weight": 2}), 422, "invalid", "/weight")
    problem(await api.put(f"/queues/{queue}/keys/k", json={"weight": 0}), 422, "invalid", "/weight")
    problem(await api.get(f"/limits/{names['keyed']}/keys?state=empty"), 422, "invalid", "/state")
    assert good(await api.get(f"/limits/{names['keyed']}/keys"))["items"] == []


@pytest.mark.parametrize("position", ["", "0", "zz", "ff", "00", "610062", "61" * 129])
async def test_a_cursor_of_keys_that_is_none_of_ours_is_refused(api: Api, names: dict[str, str], position: str) -> None:
    cursor = next_cursor(binding("limit_keys", names["keyed"], None), position)
    reply = await api.get(f"/limits/{names['keyed']}/keys", params={"cursor": cursor})
    problem(reply, 422, "invalid", "/cursor")


async def test_an_unkeyed_limit_has_no_keys_to_override(api: Api, names: dict[str, str]) -> None:
    path = f"/limits/{names['plain']}/keys"
    for method, rest in (
        ("PUT", "/k"),
        ("GET", "/k"),
        ("DELETE", "/k"),
        ("POST", "/k/pause"),
        ("POST", "/k/resume"),
        ("GET", ""),
    ):
        body: dict[str, Any] = {"json": {}} if method == "PUT" else {}
        problem(await api.client.request(method, path + rest, **body), 422, "invalid", "/key")


async def test_a_task_without_a_key_is_refused_where_one_is_required(api: Api, names: dict[str, str]) -> None:
    required = await api.queue(key={"required": True})
    keyed = await api.queue(limits=[names["keyed"]])
    own = [{"name": names["keyed"]}]
    for queue, more, where in (
        (required, {}, "/key"),
        (keyed, {}, "/key"),
        (await api.queue(), {"limits": own}, "/limits/0/key"),
    ):
        problem(await api.post(f"/queues/{queue}/tasks", json={"payload": 1, **more}), 422, "invalid", where)
        await api.enqueue(queue, key="k", **more)
    waiting = await api.enqueue(required, key="k")
    problem(await api.client.patch(f"/tasks/{waiting['id']}", json={"key": None}), 422, "invalid", "/key")
    assert (await api.task(waiting["id"]))["key"] == "k"
    problem(
        await api.put(f"/schedules/{fresh('s')}", json={"queue": required, "payload": 1, "cron": "@daily"}),
        422,
        "invalid",
        "/key",
    )
    await api.enqueue(keyed, limits=[{"name": names["keyed"], "key": "one"}])


async def test_a_task_takes_at_most_four_named_or_keyed_limits(api: Api, names: dict[str, str]) -> None:
    three = [names[noun] for noun in ("plain", "other1", "other2")]
    queue = await api.queue(limits=three, key={"max_concurrency": 1})
    fourth, fifth = {"name": names["other3"]}, {"name": names["paced"]}
    await api.enqueue(queue, limits=[fourth])
    problem(
        await api.post(f"/queues/{queue}/tasks", json={"payload": 1, "key": "k", "limits": [fourth]}),
        422,
        "invalid",
        "/limits",
    )
    problem(
        await api.post(f"/queues/{queue}/tasks", json={"payload": 1, "limits": [fourth, fifth]}),
        422,
        "invalid",
        "/limits",
    )
    await api.enqueue(queue, key="k", limits=[{"name": three[0]}])
    four = [*three, names["other3"]]
    problem(
        await api.put(f"/queues/{queue}", json={"limits": four, "key": {"max_concurrency": 1}}),
        422,
        "invalid",
        "/limits",
    )
    handler = await api.handler("https://example.com/", limits=[names["paced"], names["other3"]])
    problem(await api.put(f"/queues/{queue}", json={"handler": handler, "limits": three}), 422, "invalid", "/limits")
    good(await api.put(f"/queues/{queue}", json={"handler": handler, "limits": three[:2]}))
    body = {"url": "https://example.com/", "limits": [names["paced"], names["other3"], names["other2"]]}
    assert queue in problem(await api.put(f"/handlers/{handler}", json=body), 422, "invalid", "/limits")["detail"]


async def test_a_burst_that_is_lowered_later_refuses_only_what_comes_then(api: Api) -> None:
    name, queue = fresh("l"), await api.queue()
    good(await api.put(f"/limits/{name}", json={"rate": {"limit": 10, "burst": 50}}), 201)
    task = await api.enqueue(queue, limits=[{"name": name, "cost": 50}])
    good(await api.put(f"/limits/{name}", json={"rate": {"limit": 10, "burst": 5}}))
    body = {"payload": 1, "limits": [{"name": name, "cost": 50}]}
    assert (
        "5" in problem(await api.post(f"/queues/{queue}/tasks", json=body), 422, "invalid", "/limits/0/cost")["detail"]
    )
    assert (await api.task(task["id"]))["state"] == "ready"


async def test_definitions_with_a_fault_change_nothing(api: Api, names: dict[str, str]) -> None:
    queue, limit = fresh("q"), fresh("l")
    document: dict[str, Any] = {
        "named_limits": {limit: {"rate": {"limit": 10, "burst": 2}}, fresh("bad"): {"max_concurrency": 0}},
        "queues": {queue: {"limits": [limit]}},
    }
    assert problem(await api.post("/definitions/apply", json=document), 422, "invalid")["errors"][0][
        "pointer"
    ].endswith("/max_concurrency")
    document["named_limits"].popitem()
    document["queues"][queue] = {
        "limits": ["none", {"name": limit, "cost": 3}, {"name": limit}, {"name": names["plain"], "key": "k"}]
    }
    wanted = [f"/queues/{queue}/limits/{rest}" for rest in ("2", "0/name", "1/cost", "3/key")]
    problem(await api.post("/definitions/apply", json=document), 422, "invalid", *wanted)
    problem(await api.get(f"/limits/{limit}"), 404, "limit_not_found")
    problem(await api.get(f"/queues/{queue}"), 404, "queue_not_found")


async def test_a_plan_judges_schedules_and_handlers_by_the_limits_and_queues_as_they_will_be(
    api: Api, names: dict[str, str]
) -> None:
    limit, queue, schedule = fresh("l"), fresh("q"), fresh("s")
    daily = {"queue": queue, "cron": "@daily", "payload": 1}
    document: dict[str, Any] = {
        "named_limits": {limit: {"keyed": True, "rate": {"limit": 10, "burst": 2}}},
        "queues": {queue: {"key": {"required": True}}},
        "schedules": {schedule: {**daily, "limits": [{"name": limit, "cost": 3}]}},
    }
    where = f"/schedules/{schedule}"
    faults = [f"{where}/key", f"{where}/limits/0/key", f"{where}/limits/0/cost"]
    problem(await api.post("/definitions/plan", json=document), 422, "invalid", *faults)
    document["schedules"][schedule] = {**daily, "key": "k", "limits": [{"name": limit}]}
    good(await api.post("/definitions/apply", json=document))
    three = [names["plain"], names["other1"], names["other2"]]
    handler = await api.handler("https://example.com/")
    theirs = await api.queue(handler, limits=three)
    own = {handler: {"url": "https://example.com/", "limits": [names["other3"], names["paced"]]}}
    reply = await api.post("/definitions/plan", json={"handlers": own})
    assert theirs in problem(reply, 422, "invalid", f"/handlers/{handler}/limits")["detail"]


@pytest.mark.parametrize(
    "key", ["%FF", "%ED%A0%80", "%", "%zz", "%00", "..", "a//b", "%2e%2e%2f", "k%0d%0aset-cookie:x"]
)
async def test_hostile_keys_in_paths_get_a_clean_answer(api: Api, names: dict[str, str], key: str) -> None:
    for path in (f"/limits/{names['keyed']}/keys/{key}", f"/queues/{await api.queue()}/keys/{key}"):
        for line, body in (("GET", b""), ("PUT", b"{}")):
            head = f"{line} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            status, _, _ = await raw(api.url, head.encode() + b"connection: close\r\n\r\n" + body)
            assert status in (200, 400, 404, 405, 422), (line, path, status)
