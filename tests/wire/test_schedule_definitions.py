"""The definition of a schedule on the wire: put, shown, listed, previewed, paused, deleted; what it names, and who sees it."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from app.domain.handlers import HandlerDefinition, handler_etag
from app.domain.instants import format_instant
from app.domain.schedules.bodies import parse_schedule
from app.domain.schedules.definitions import schedule_etag
from tests.handlers import Handler
from tests.sluices import Replica
from tests.wire.api import Api, fresh, good, problem
from tests.wire.test_schedules import ledger, schedule

pytestmark = pytest.mark.anyio

YEARLY: dict[str, Any] = {"cron": "0 0 1 1 *"}
"""Never due while a test runs; well, hardly ever."""
DEFAULTS: dict[str, Any] = {
    "cron": None,
    "every_seconds": None,
    "phase_seconds": 0.0,
    "at": None,
    "seconds": False,
    "timezone": "UTC",
    "type": None,
    "headers": {},
    "tags": [],
    "target": None,
    "priority": 0,
    "retry": None,
    "timeout_seconds": None,
    "handler": None,
    "dst": "once",
    "overlap": "skip",
    "catch_up": {"window_seconds": None, "mode": "latest"},
    "jitter_seconds": 0.0,
    "start_at": None,
    "end_at": None,
    "max_runs": None,
    "pause_after_failures": None,
    "on_complete": None,
    "key": None,
    "limits": [],
}
OPERATIONAL: dict[str, Any] = {"paused": False, "paused_at": None, "paused_reason": None}


async def test_a_put_answers_with_the_whole_definition_its_next_times_and_its_reading(api: Api) -> None:
    queue, name = await api.queue(), fresh("s")
    reply = await api.put(
        f"/schedules/{name}",
        json={"queue": queue, "payload": {"n": 1}, "cron": "30 9 * * 1", "timezone": "America/New_York"},
    )
    shown = good(reply, 201)
    expected = DEFAULTS | OPERATIONAL | {"cron": "30 9 * * 1", "timezone": "America/New_York"}
    expected |= {"id": name, "queue": queue, "payload": {"n": 1}}
    assert {key: shown[key] for key in expected} == expected
    rest = set(shown) - set(expected)
    assert rest == {"next_nominal_at", "created_at", "updated_at", "times", "reading"}
    assert len(shown["times"]) == 5 and shown["times"][0]["at"] == shown["next_nominal_at"]
    for time in shown["times"]:
        assert "T09:30:00-0" in time["local"]
        assert datetime.fromisoformat(time["at"]) == datetime.fromisoformat(time["local"])
    assert "09:30" in shown["reading"] and "Monday" in shown["reading"]
    fetched = await api.get(f"/schedules/{name}")
    assert good(fetched) == shown and fetched.headers["etag"] == reply.headers["etag"]


async def test_every_field_comes_back_as_it_was_put(api: Api, handler: Handler) -> None:
    named = await api.handler(handler.url)
    queue, then, name = await api.queue(named), await api.queue(), fresh("s")
    given = {
        "queue": queue,
        "every_seconds": 90.5,
        "phase_seconds": 1.25,
        "payload": [1, {"a": None}],
        "type": "tick",
        "headers": {"x-a": "b"},
        "tags": ["t"],
        "priority": -3,
        "retry": {"max_attempts": 2},
        "timeout_seconds": 4.5,
        "handler": named,
        "overlap": "buffer_all",
        "catch_up": {"window_seconds": 600.0, "mode": "all"},
        "jitter_seconds": 2.5,
        "start_at": "2030-01-01T00:00:00.000000Z",
        "end_at": "2031-01-01T00:00:00.000000Z",
        "max_runs": 7,
        "pause_after_failures": 3,
        "on_complete": {"queue": then, "payload": {"done": True}, "type": "sum"},
    }
    shown = good(await api.put(f"/schedules/{name}", json=given), 201)
    assert {key: shown[key] for key in given} == given
    assert shown["times"][0]["at"] >= "2030-01-01"
    # absent fields return to their defaults
    reset = good(await api.put(f"/schedules/{name}", json={"queue": queue, "payload": None, **YEARLY}))
    assert {key: reset[key] for key in DEFAULTS} == DEFAULTS | YEARLY


async def test_the_payload_is_shown_and_sent_as_its_span_stood_in_the_request(api: Api, handler: Handler) -> None:
    queue, name = await api.queue_to(handler.url), fresh("s")
    span = b'{"z":1.0,  "a":[1e2,"\\u00e9"]}'
    body = b'{"queue":"' + queue.encode() + b'","cron":"@yearly","payload":' + span + b"}"
    headers = {"content-type": "application/json"}
    assert (await api.put(f"/schedules/{name}", content=body, headers=headers)).status_code == 201
    assert span in (await api.get(f"/schedules/{name}")).content
    good(await api.post(f"/schedules/{name}/trigger"))
    [call] = await handler.received()
    assert call.body == span


async def test_an_equal_put_changes_nothing_and_another_raises_the_etag(api: Api) -> None:
    queue, name = await api.queue(), fresh("s")
    body = {"queue": queue, "payload": 1, **YEARLY}
    first = await api.put(f"/schedules/{name}", json=body)
    again = await api.put(f"/schedules/{name}", json=body)
    assert good(again) == good(first, 201) and again.headers["etag"] == first.headers["etag"]
    other = await api.put(f"/schedules/{name}", json=body | {"payload": 2})
    assert other.headers["etag"] != first.headers["etag"]
    assert good(other)["updated_at"] > first.json()["updated_at"]
    assert other.json()["created_at"] == first.json()["created_at"]


async def test_an_etag_confirms_no_guess_at_what_is_hidden(api: Api) -> None:
    queue, name = await api.queue(), fresh("s")
    schedule, handler = {"queue": queue, "payload": 1, **YEARLY}, {"url": "https://example.com/", "headers": {"a": "1"}}
    guesses = {
        f"/schedules/{name}": schedule_etag(parse_schedule(json.dumps(schedule).encode(), 1_000)),
        f"/handlers/{name}": handler_etag(HandlerDefinition("https://example.com/", headers={"a": "1"})),
    }
    good(await api.put(f"/schedules/{name}", json=schedule), 201)
    good(await api.put(f"/handlers/{name}", json=handler), 201)
    for path, guess in guesses.items():
        assert (await api.get(path)).headers["etag"] != guess


async def test_conditions_hold_or_the_write_is_refused(api: Api) -> None:
    queue, name = await api.queue(), fresh("s")
    path, body = f"/schedules/{name}", {"queue": queue, "payload": 1, **YEARLY}
    problem(await api.put(path, json=body, headers={"if-match": '"x"'}), 412, "etag_mismatch")
    first = await api.put(path, json=body, headers={"if-none-match": "*"})
    good(first, 201)
    problem(await api.put(path, json=body, headers={"if-none-match": "*"}), 412, "etag_mismatch")
    etag = first.headers["etag"]
    good(await api.put(path, json=body | {"payload": 2}, headers={"if-match": etag}))
    problem(await api.put(path, json=body | {"payload": 3}, headers={"if-match": etag}), 412, "etag_mismatch")
    problem(await api.delete(path, headers={"if-match": etag}), 412, "etag_mismatch")
    assert good(await api.get(path))["payload"] == 2


async def test_of_racing_creations_one_is_201(api: Api, other: Api) -> None:
    queue, name = await api.queue(), fresh("s")
    body = {"queue": queue, "payload": 1, **YEARLY}
    replies = await asyncio.gather(*(one.put(f"/schedules/{name}", json=body) for one in (api, other) * 4))
    assert sorted(reply.status_code for reply in replies) == [200] * 7 + [201]


@pytest.mark.parametrize(
    ("fields", "pointers"),
    [
        ({}, [""]),
        ({"cron": "* * * * *", "every_seconds": 5}, ["/every_seconds"]),
        ({"cron": "61 * * * *"}, ["/cron"]),
        ({"cron": "0 0 30 2 *"}, ["/cron"]),
        ({"cron": "* * * * * *"}, ["/cron"]),
        ({"cron": 5}, ["/cron"]),
        ({"every_seconds": 0.5}, ["/every_seconds"]),
        ({"every_seconds": 10, "phase_seconds": 10}, ["/phase_seconds"]),
        ({"at": "tomorrow"}, ["/at"]),
        ({**YEARLY, "timezone": "Mars/Olympus"}, ["/timezone"]),
        ({**YEARLY, "dst": "never"}, ["/dst"]),
        ({**YEARLY, "overlap": "maybe"}, ["/overlap"]),
        ({**YEARLY, "catch_up": {"mode": "some"}}, ["/catch_up/mode"]),
        ({**YEARLY, "catch_up": {"window_seconds": -1}}, ["/catch_up/window_seconds"]),
        ({**YEARLY, "jitter_seconds": -1}, ["/jitter_seconds"]),
        ({**YEARLY, "max_runs": 0}, ["/max_runs"]),
        ({**YEARLY, "pause_after_failures": 0}, ["/pause_after_failures"]),
        ({**YEARLY, "start_at": "2030-01-01T00:00:00Z", "end_at": "2029-01-01T00:00:00Z"}, ["/end_at"]),
        ({**YEARLY, "priority": 101}, ["/priority"]),
        ({**YEARLY, "retry": {"max_attempts": 0}}, ["/retry/max_attempts"]),
        ({**YEARLY, "queue": "no-such-queue"}, ["/queue"]),
        ({**YEARLY, "handler": "no-such-handler"}, ["/handler"]),
        ({**YEARLY, "on_complete": {"queue": "no-such-queue", "payload": 1}}, ["/on_complete/queue"]),
        ({**YEARLY, "on_complete": {"queue": "x"}}, ["/on_complete/payload"]),
        ({**YEARLY, "colour": "red"}, ["/colour"]),
        ({**YEARLY, "paused": True}, ["/paused"]),
    ],
)
async def test_what_cannot_be_is_refused_with_its_place_and_nothing_is_stored(
    api: Api, handler: Handler, fields: dict[str, Any], pointers: list[str]
) -> None:
    queue, name = await api.queue_to(handler.url), fresh("s")
    reply = await api.put(f"/schedules/{name}", json={"queue": queue, "payload": None, **fields})
    problem(reply, 422, "invalid", *pointers)
    problem(await api.get(f"/schedules/{name}"), 404, "schedule_not_found")


async def test_a_payload_is_required_and_a_name_is_a_name(api: Api) -> None:
    queue = await api.queue()
    problem(await api.put(f"/schedules/{fresh('s')}", json={"queue": queue, **YEARLY}), 422, "invalid", "/payload")
    reply = await api.put("/schedules/Not%20a%20name", json={"queue": queue, "payload": 1, **YEARLY})
    assert reply.status_code in (404, 422)


async def test_what_is_not_there_is_not_found_by_any_verb(api: Api) -> None:
    past = {"from": "2025-01-01T00:00:00Z", "to": "2025-01-02T00:00:00Z"}
    for method, path, body in (
        ("GET", "", None),
        ("DELETE", "", None),
        ("POST", "/pause", None),
        ("POST", "/resume", None),
        ("POST", "/trigger", {}),
        ("POST", "/trigger", {"payload": 1}),
        ("POST", "/backfill", past),
        ("GET", "/history", None),
        ("GET", "/preview", None),
    ):
        reply = await api.client.request(method, f"/schedules/no-such-schedule{path}", json=body)
        problem(reply, 404, "schedule_not_found")


async def test_schedules_are_listed_by_name_in_pages(api: Api) -> None:
    queue = await api.queue()
    names = sorted([await schedule(api, queue, **YEARLY) for _ in range(5)])
    listed = [item["id"] for item in await api.pages("/schedules", limit=2)]
    assert [name for name in listed if name in names] == names and listed == sorted(listed)
    await api.delete(f"/schedules/{names[0]}")
    assert names[0] not in [item["id"] for item in await api.pages("/schedules")]


async def test_a_saved_schedule_is_previewed_after_any_instant(api: Api) -> None:
    name = await schedule(api, await api.queue(), cron="0 12 * * *", timezone="Asia/Tokyo")
    path = f"/schedules/{name}/preview"
    shown = good(await api.get(path, params={"count": 2, "after": "2026-05-01T03:00:00Z"}))
    assert [time["at"] for time in shown["times"]] == ["2026-05-02T03:00:00.000000Z", "2026-05-03T03:00:00.000000Z"]
    assert shown["times"][0]["local"] == "2026-05-02T12:00:00+09:00"
    assert len(good(await api.get(path))["times"]) == 10
    problem(await api.get(path, params={"count": 0}), 422, "invalid", "/count")
    problem(await api.get(path, params={"count": 1001}), 422, "invalid", "/count")
    problem(await api.get(path, params={"after": "noon"}), 422, "invalid", "/after")
    for edge in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"):
        assert (await api.get(path, params={"after": edge})).status_code == 200


async def test_after_the_clock_went_back_no_times_are_listed_that_are_in_the_ledger_already(
    api: Api, shared: Replica
) -> None:
    name = await schedule(api, await api.queue(), every_seconds=60)
    (ahead,) = await shared.sluice.core.db.fetch(
        "update sluice.schedules set next_nominal_at = next_nominal_at + interval '10 minutes', seq = seq + 1 where name = $1"
        " returning next_nominal_at",
        name,
    )
    shown = good(await api.get(f"/schedules/{name}"))
    assert shown["times"][0]["at"] == shown["next_nominal_at"] == format_instant(ahead[0])
    assert len(shown["times"]) == 5
    (listed,) = [item for item in await api.pages("/schedules") if item["id"] == name]
    assert listed["times"] == shown["times"] == good(await api.post(f"/schedules/{name}/pause"))["times"]
    previewed = good(await api.get(f"/schedules/{name}/preview", params={"count": 5}))
    assert previewed["times"] == shown["times"]


async def test_no_more_times_are_listed_than_there_are_runs_left(api: Api) -> None:
    name = await schedule(api, await api.queue(), cron="0 0 1 1 *", max_runs=2)
    assert len(good(await api.get(f"/schedules/{name}"))["times"]) == 2
    assert len(good(await api.get(f"/schedules/{name}/preview"))["times"]) == 2
    after: dict[str, Any] = {"after": "2020-01-01T00:00:00Z", "count": 4}
    assert len(good(await api.get(f"/schedules/{name}/preview", params=after))["times"]) == 4


async def test_a_preview_ends_where_the_definition_ends(api: Api) -> None:
    body = {"every_seconds": 60, "start_at": "2026-05-01T00:00:00Z", "end_at": "2026-05-01T00:02:00Z"}
    shown = good(await api.post("/schedules/preview", json=body | {"after": "2026-01-01T00:00:00Z"}))
    assert [time["at"][11:19] for time in shown["times"]] == ["00:00:00", "00:01:00", "00:02:00"]
    once = good(
        await api.post(
            "/schedules/preview", json={"at": "2026-05-01T00:00:00.123456Z", "after": "2026-01-01T00:00:00Z"}
        )
    )
    assert [time["at"] for time in once["times"]] == ["2026-05-01T00:00:00.123456Z"]


async def test_a_pause_survives_a_put_and_both_verbs_may_be_repeated(api: Api) -> None:
    queue = await api.queue()
    name = await schedule(api, queue, **YEARLY)
    paused = good(await api.post(f"/schedules/{name}/pause"))
    assert paused["paused"] and paused["paused_at"] and paused["paused_reason"] == "paused by request"
    assert good(await api.post(f"/schedules/{name}/pause")) == paused
    edited = good(await api.put(f"/schedules/{name}", json={"queue": queue, "payload": 2, **YEARLY}))
    assert {key: edited[key] for key in OPERATIONAL} == {key: paused[key] for key in OPERATIONAL}
    resumed = good(await api.post(f"/schedules/{name}/resume"))
    assert {key: resumed[key] for key in OPERATIONAL} == OPERATIONAL
    assert good(await api.post(f"/schedules/{name}/resume")) == resumed


async def test_a_deleted_schedule_leaves_its_runs_and_its_name(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    name = await schedule(api, queue, **YEARLY)
    run = good(await api.post(f"/schedules/{name}/trigger"))
    assert (await api.delete(f"/schedules/{name}")).status_code == 204
    problem(await api.delete(f"/schedules/{name}"), 404, "schedule_not_found")
    await api.until(run["task_id"], "succeeded")
    good(await api.put(f"/schedules/{name}", json={"queue": queue, "payload": None, **YEARLY}), 201)
    assert await ledger(api, name) == []


async def test_a_queue_and_a_handler_that_a_schedule_names_are_in_use(api: Api, handler: Handler) -> None:
    named = await api.handler(handler.url)
    queue, then = await api.queue(await api.handler(handler.url)), await api.queue()
    name = await schedule(api, queue, **YEARLY, handler=named, on_complete={"queue": then, "payload": 1})
    problem(await api.delete(f"/queues/{queue}"), 409, "queue_in_use")
    problem(await api.delete(f"/queues/{then}"), 409, "queue_in_use")
    problem(await api.delete(f"/handlers/{named}"), 409, "handler_in_use")
    good(await api.put(f"/schedules/{name}", json={"queue": queue, "payload": 1, **YEARLY}))
    for path in (f"/queues/{then}", f"/handlers/{named}"):
        assert (await api.delete(path)).status_code == 204
    assert (await api.delete(f"/schedules/{name}")).status_code == 204
    assert (await api.delete(f"/queues/{queue}")).status_code == 204


async def test_the_payload_is_judged_by_the_schema_of_its_queue(api: Api) -> None:
    queue = await api.queue(payload_schema={"type": "object", "required": ["n"]})
    path, body = f"/schedules/{fresh('s')}", {"queue": queue, **YEARLY}
    refused = await api.put(path, json=body | {"payload": {}})
    assert (refused.status_code, refused.json()["code"]) == (422, "payload_schema_mismatch")
    good(await api.put(path, json=body | {"payload": {"n": 1}}), 201)
    refused = await api.post(f"{path}/trigger", json={"payload": 7})
    assert (refused.status_code, refused.json()["code"]) == (422, "payload_schema_mismatch")
    good(await api.post(f"{path}/trigger", json={"payload": {"n": 2}}))


async def test_a_one_shot_in_the_past_never_fires_and_one_ahead_has_one_time(api: Api) -> None:
    queue = await api.queue()
    past = await schedule(api, queue, at="2020-01-01T00:00:00Z")
    shown = good(await api.get(f"/schedules/{past}"))
    assert (shown["next_nominal_at"], shown["times"]) == (None, [])
    ahead = await schedule(api, queue, at="2090-01-01T00:00:00.5Z")
    shown = good(await api.get(f"/schedules/{ahead}"))
    assert shown["next_nominal_at"] == "2090-01-01T00:00:00.500000Z" and len(shown["times"]) == 1


async def test_the_first_time_lies_strictly_after_the_definition(api: Api) -> None:
    name = await schedule(api, await api.queue(), every_seconds=3600)
    shown = good(await api.get(f"/schedules/{name}"))
    assert shown["next_nominal_at"] > shown["created_at"]
    assert datetime.fromisoformat(shown["next_nominal_at"]).astimezone(UTC).minute == 0
