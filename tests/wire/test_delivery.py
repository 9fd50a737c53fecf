"""What a handler receives, and what each of its answers means."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.handlers import Handler, Received, Reply
from tests.wire.answers import FIXED_600, outcome
from tests.wire.api import AT_ONCE, Api, fresh, good, problem, raw

pytestmark = pytest.mark.anyio

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ALWAYS = {
    *("host", "accept-encoding", "content-length", "content-type", "user-agent", "idempotency-key"),
    *("webhook-id", "webhook-timestamp", "webhook-signature"),
    *("sluice-queue", "sluice-attempt", "sluice-max-attempts", "sluice-deadline", "sluice-lease-token"),
    "sluice-task-url",
}


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def delivered(api: Api, handler: Handler, queue: str, payload: Any = None, **options: Any) -> Received:
    task = await api.enqueue(queue, payload, **options)
    return (await handler.received(task=task["id"]))[0]


# what is received


async def test_a_plain_task_comes_with_these_headers_and_no_others(api: Api, handler: Handler) -> None:
    named = await api.handler(handler.url, timeout_seconds=12)
    queue = await api.queue(named, retry={"max_attempts": 9})
    request = await delivered(api, handler, queue, {"n": 1})
    headers = request.headers
    assert {name for name, _ in request.raw_headers} == ALWAYS and len(request.raw_headers) == len(ALWAYS)
    assert (request.method, request.path, request.body) == ("POST", "/hook", b'{"n":1}')
    assert handler.url.startswith(f"http://{headers['host']}/")
    wanted = {
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": "7",
        "idempotency-key": request.task,
        "sluice-queue": queue,
        "sluice-attempt": "1",
        "sluice-max-attempts": "9",
    }
    assert {name: headers[name] for name in wanted} == wanted
    # of whichever replica has delivered it: the tests share two
    assert re.fullmatch(rf"http://127\.0\.0\.1:\d+/tasks/{request.task}", headers["sluice-task-url"])
    assert good(await api.get(headers["sluice-task-url"]))["id"] == request.task
    sent = int(headers["webhook-timestamp"])
    assert abs(sent - request.arrived_at) < 5
    ahead = instant(headers["sluice-deadline"]).timestamp() - request.arrived_at
    assert 9 < ahead < 13  # the service reads the database's clock over a round trip


async def test_all_that_a_task_may_carry_comes_too(api: Api, handler: Handler) -> None:
    named = await api.handler(handler.url, headers={"X-Key": "s3cret", "x-both": "handler"})
    request = await delivered(
        api,
        handler,
        await api.queue(named),
        type="mail.send",
        correlation_id="order 66",
        headers={"X-Task": "a b\tc", "X-Both": "task", "x-empty": ""},
        retry={"max_attempts": 3},
    )
    extra = {name: value for name, value in request.headers.items() if name not in ALWAYS}
    assert extra == {
        "x-key": "s3cret",
        "x-both": "handler",
        "x-task": "a b\tc",
        "x-empty": "",
        "sluice-type": "mail.send",
        "x-correlation-id": "order 66",
    }
    assert request.headers["sluice-max-attempts"] == "3"


async def test_texts_that_are_no_header_come_percent_encoded(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    request = await delivered(api, handler, queue, type="caf\u00e9 1", correlation_id="\u20ac%")
    assert request.headers["sluice-type"] == "caf%C3%A9%201"
    assert request.headers["x-correlation-id"] == "%E2%82%AC%25"


async def test_every_attempt_has_the_same_id_and_a_signature_and_token_of_its_own(api: Api, handler: Handler) -> None:
    name = fresh("h")
    secret = good(await api.put(f"/handlers/{name}", json={"url": handler.url}), 201)["secret"]
    handler.answer(Reply(500), Reply(500))
    task = await api.enqueue(await api.queue(name, retry=AT_ONCE), '\u00e9 "x"')
    requests = await handler.received(3)
    assert {request.task for request in requests} == {task["id"]}
    assert {request.headers["idempotency-key"] for request in requests} == {task["id"]}
    assert len({request.headers["sluice-lease-token"] for request in requests}) == 3
    assert [request.headers["sluice-attempt"] for request in requests] == ["1", "2", "3"]
    for request in requests:
        assert Webhook(secret).verify(request.body, dict(request.headers)) == '\u00e9 "x"'
        with pytest.raises(Exception, match="signature"):
            Webhook(secret).verify(request.body + b" ", dict(request.headers))


async def test_a_trace_that_came_in_is_stored_and_goes_out(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url, retry=AT_ONCE)
    handler.answer(Reply(500))
    headers = {"traceparent": TRACE, "tracestate": "a=1,b=2"}
    task = good(await api.enqueue_bytes(queue, b'{"payload":1}', headers), 201)
    requests = await handler.received(2)
    for request in requests:
        version, trace, span, flags = request.headers["traceparent"].split("-")
        assert (version, trace, flags) == ("00", TRACE[3:35], "01") and len(span) == 16
        assert request.headers["tracestate"] == "a=1,b=2"
    await api.until(task["id"], "succeeded")
    assert {attempt["trace_id"] for attempt in await api.attempts(task["id"])} == {TRACE[3:35]}


@pytest.mark.parametrize(
    "traceparent",
    ["", "x", "00-" + "0" * 32 + "-00f067aa0ba902b7-01", TRACE + "-x", TRACE.upper(), "ff" + TRACE[2:], "\x01"],
)
async def test_a_trace_that_is_none_is_left_out_and_refuses_nothing(
    api: Api, handler: Handler, traceparent: str
) -> None:
    queue = await api.queue_to(handler.url)
    body = b'{"payload":1}'
    head = f"POST /queues/{queue}/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    head += f"content-length: {len(body)}\r\ntraceparent: {traceparent}\r\ntracestate: a=1\r\n\r\n"
    status, _, answer = await raw(api.url, head.encode() + body)
    if traceparent == "\x01":
        assert status == 400
        return
    assert status == 201
    [request] = await handler.received(task=json.loads(answer)["id"])
    assert "traceparent" not in request.headers and "tracestate" not in request.headers


async def test_a_task_s_own_handler_receives_it_under_its_own_terms(
    api: Api, handler: Handler, start_handler: Callable[[], Awaitable[Handler]]
) -> None:
    second = await start_handler()
    second.answer(Reply(422))
    own = await api.handler(second.url, fatal_statuses=[422], headers={"x-own": "1"}, timeout_seconds=7)
    queue = await api.queue_to(handler.url)
    task = await api.enqueue(queue, handler=own)
    ended = await api.until(task["id"], "dead", reason="fatal_status")
    [request] = second.requests
    assert (request.headers["x-own"], ended["handler"], ended["timeout_seconds"]) == ("1", own, 7)
    assert handler.requests == []


async def test_requests_share_a_connection_and_each_is_whole(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url, max_concurrency=1)
    payloads = ["x" * size for size in (0, 1, 70_000, 3, 200_000)]
    for payload in payloads:
        request = await delivered(api, handler, queue, payload)
        assert request.json == payload
        await api.until(request.task, "succeeded")


# what an answer means, row by row


@pytest.mark.parametrize("status", [200, 201, 202, 204, 226, 299])
async def test_a_2xx_succeeds_whatever_else_it_says(api: Api, handler: Handler, status: int) -> None:
    handler.answer(Reply(status, {"sluice-retry": "no", "retry-after": "9"}, b"" if status == 204 else b"hm"))
    named = await api.handler(handler.url, fatal_statuses=[status])
    task = await api.enqueue(await api.queue(named))
    ended = await api.until(task["id"], "succeeded", attempt=1)
    [attempt] = await api.attempts(task["id"])
    assert (attempt["outcome"], attempt["status"], attempt["error"]) == ("succeeded", status, None)
    assert (ended["reason"], ended["last_error"]) == (None, None)
    assert ended["result"] == (None if status == 204 else "hm")


async def test_410_refunds_the_attempt_and_disables_the_handler(api: Api, handler: Handler) -> None:
    handler.answer(Reply(410, {"sluice-retry": "no"}, b"gone for good"))
    named = await api.handler(handler.url, fatal_statuses=[410])
    queue = await api.queue(named, retry={"max_attempts": 1})
    task = await api.enqueue(queue)
    shown = await api.until(task["id"], "ready", waiting_for="handler_disabled")
    assert (shown["attempt"], shown["last_error"]) == (0, "the handler answered 410")
    [attempt] = await api.attempts(task["id"])
    assert (attempt["counted"], attempt["outcome"], attempt["status"]) == (False, "failed", 410)
    assert attempt["excerpt"] == "gone for good"
    disabled = good(await api.get(f"/handlers/{named}"))
    assert disabled["enabled"] is False and disabled["disabled_at"] and "410" in disabled["disabled_reason"]
    later = await api.enqueue(queue)
    assert later["waiting_for"] == "handler_disabled" and len(handler.requests) == 1
    good(await api.post(f"/handlers/{named}/enable"))
    requests = await handler.received(3)
    assert sorted(request.task for request in requests[1:]) == sorted([task["id"], later["id"]])
    await api.until(task["id"], "succeeded", attempt=1)
    newest, oldest = await api.attempts(task["id"])
    assert (newest["number"], newest["counted"], oldest["number"], oldest["counted"]) == (2, True, 1, False)


@pytest.mark.parametrize("status", [302, 404, 429, 500, 503])
@pytest.mark.parametrize("value", ["no", "NO", " No "])
async def test_sluice_retry_no_ends_the_task(api: Api, handler: Handler, status: int, value: str) -> None:
    headers = {"sluice-retry": value, "retry-after": "1"}
    shown, attempt = await outcome(api, handler, Reply(status, headers, b"never"))
    assert (shown["state"], shown["reason"], shown["attempt"]) == ("dead", "stopped_by_handler", 1)
    assert (attempt["outcome"], attempt["status"], attempt["excerpt"]) == ("failed", status, "never")
    assert str(status) in shown["last_error"] and shown["result"] is None


@pytest.mark.parametrize("value", ["yes", "", "none", "no, thanks"])
async def test_any_other_sluice_retry_means_nothing(api: Api, handler: Handler, value: str) -> None:
    shown, _ = await outcome(api, handler, Reply(500, {"sluice-retry": value}))
    assert shown["state"] == "scheduled"


async def test_sluice_retry_is_read_before_the_fatal_statuses(api: Api, handler: Handler) -> None:
    named = await api.handler(handler.url, fatal_statuses=[400])
    handler.answer(Reply(400, {"sluice-retry": "no"}), Reply(400))
    queue = await api.queue(named)
    for reason in ("stopped_by_handler", "fatal_status"):
        task = await api.enqueue(queue)
        await api.until(task["id"], "dead", reason=reason, attempt=1)


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 413, 429, 500, 502, 599])
async def test_all_other_answers_are_tried_again(api: Api, handler: Handler, status: int) -> None:
    headers = {"location": handler.url + "/elsewhere"}
    shown, attempt = await outcome(api, handler, Reply(status, headers, b"why"))
    assert (shown["state"], shown["waiting_for"], shown["attempt"]) == ("scheduled", "retry_backoff", 1)
    assert (attempt["outcome"], attempt["status"], attempt["counted"], attempt["excerpt"]) == (
        "failed",
        status,
        True,
        "why",
    )
    assert shown["last_error"] == attempt["error"] == f"the handler answered {status}"
    wait = instant(shown["run_at"]) - instant(attempt["ended_at"])
    assert wait == timedelta(seconds=600)
    assert [request.path for request in handler.requests] == ["/hook"]


async def test_the_last_allowed_attempt_leaves_a_dead_task(api: Api, handler: Handler) -> None:
    handler.script(Reply(500, {"retry-after": "1"}))
    queue = await api.queue_to(handler.url, retry=FIXED_600 | {"max_attempts": 5})
    task = await api.enqueue(queue, retry=AT_ONCE | {"max_attempts": 2, "retry_after_max_seconds": 0})
    dead = await api.until(task["id"], "dead", reason="attempts_exhausted", attempt=2)
    assert dead["max_attempts"] == 2 and dead["ended_at"] and len(handler.requests) == 2


@pytest.mark.parametrize(
    ("backoff", "waits"),
    [
        ({"kind": "fixed", "seconds": 7.5}, [(7.5, 7.5)] * 2),
        ({"kind": "list", "seconds": [10, 30]}, [(10, 10), (30, 30), (30, 30)]),
        ({"min_seconds": 10, "factor": 3, "max_seconds": 50, "jitter": "none"}, [(10, 10), (30, 30), (50, 50)]),
        ({"min_seconds": 1000, "jitter": "equal"}, [(500, 1000), (1000, 2000), (1800, 3600)]),
        ({"min_seconds": 1e5, "max_seconds": 1e6, "jitter": "full"}, [(0, 1e5), (0, 2e5)]),
    ],
)
async def test_a_task_waits_as_its_backoff_says(
    api: Api, handler: Handler, backoff: dict[str, Any], waits: list[tuple[float, float]]
) -> None:
    handler.script(Reply(500))
    task = await api.enqueue(await api.queue_to(handler.url, retry={"backoff": backoff}))
    for number, (least, most) in enumerate(waits, 1):
        shown = await api.until(task["id"], "scheduled", attempt=number)
        newest = (await api.attempts(task["id"]))[0]
        assert least <= (instant(shown["run_at"]) - instant(newest["ended_at"])).total_seconds() <= most
        good(await api.retry(task["id"]))


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("120", 120),
        (" 120 ", 120),
        ("0", 10),
        ("3", 10),
        ("999999999999999999999", 300),
        ("-5", 10),
        ("1.5", 10),
        ("soon", 10),
        ("", 10),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 10),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 300),
    ],
)
async def test_retry_after_is_heeded_within_its_bounds(api: Api, handler: Handler, value: str, wait: float) -> None:
    retry = {"backoff": {"kind": "fixed", "seconds": 10}, "retry_after_max_seconds": 300}
    shown, attempt = await outcome(api, handler, Reply(503, {"retry-after": value}), retry=retry)
    assert (instant(shown["run_at"]) - instant(attempt["ended_at"])).total_seconds() == wait


async def test_retry_after_may_be_a_date(api: Api, handler: Handler) -> None:
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=100)
    date = format_datetime(at, usegmt=True)
    shown, _ = await outcome(api, handler, Reply(429, {"retry-after": date}), retry={"backoff": {"max_seconds": 1}})
    assert abs(instant(shown["run_at"]) - at) < timedelta(seconds=3)


async def test_without_an_answer_the_attempt_times_out(api: Api, handler: Handler) -> None:
    never = asyncio.Event()
    shown, attempt = await outcome(api, handler, Reply(until=never), timeout_seconds=0.2)
    assert (shown["state"], shown["attempt"]) == ("scheduled", 1)
    assert (attempt["outcome"], attempt["status"], attempt["excerpt"]) == ("timeout", None, None)
    assert attempt["error"] and shown["last_error"] == attempt["error"]
    await handler.idle()


@pytest.mark.parametrize("level", ["handler", "queue", "task"])
async def test_the_nearest_timeout_counts(api: Api, handler: Handler, level: str) -> None:
    seconds = {name: 0.2 if name == level else 60 for name in ("handler", "queue", "task")}
    never = asyncio.Event()
    handler.script(Reply(until=never))
    named = await api.handler(handler.url, timeout_seconds=seconds["handler"])
    queue = {} if level == "handler" else {"timeout_seconds": seconds["queue"]}
    given = {"timeout_seconds": seconds["task"]} if level == "task" else {}
    task = await api.enqueue(await api.queue(named, retry=FIXED_600, **queue), **given)
    assert task["timeout_seconds"] == 0.2
    [request] = await handler.received()
    assert instant(request.headers["sluice-deadline"]).timestamp() - request.arrived_at < 5
    await api.until(task["id"], "scheduled", attempt=1)


async def test_a_body_that_drips_past_the_deadline_is_no_answer(api: Api) -> None:
    cut = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\nnull")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        gone = None
        while gone is None:
            writer.write(b"x")
            with suppress(TimeoutError, ConnectionError):
                gone = await asyncio.wait_for(reader.read(1), 0.02)
        cut.set()
        writer.close()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        queue = await api.queue_to(f"http://127.0.0.1:{port}/", timeout_seconds=0.3, retry=FIXED_600)
        task = await api.enqueue(queue)
        await api.until(task["id"], "scheduled", attempt=1)
        [attempt] = await api.attempts(task["id"])
        assert (attempt["outcome"], attempt["status"]) == ("timeout", None)
        await asyncio.wait_for(cut.wait(), 5)


@pytest.mark.parametrize(
    ("reply", "outcome_name"),
    [
        (b"", "unreachable"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", "unreachable"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", "unreachable"),
        (b"SSH-2.0-OpenSSH\r\n", "unreachable"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "unreachable"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc", "unreachable"),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n", "unreachable"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "unreachable"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 200_000 + b"\r\n\r\n", "too_large"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 300 + b"\r\n", "too_large"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 50, "too_large"),
    ],
)
async def test_what_is_no_full_answer_is_tried_again(
    api: Api, handler: Handler, reply: bytes, outcome_name: str
) -> None:
    shown, attempt = await outcome(api, handler, Reply(raw=reply))
    assert (shown["state"], shown["attempt"]) == ("scheduled", 1)
    assert (attempt["outcome"], attempt["status"]) == (outcome_name, None) and attempt["error"]
    assert len(handler.requests) == 1


@pytest.mark.parametrize(
    ("reply", "result"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", "until the end"),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the end", "until the end"),
        (b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok", "ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "ok"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\nt: 1\r\n\r\n", "abc"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", None),
    ],
)
async def test_every_lawful_framing_is_an_answer(api: Api, handler: Handler, reply: bytes, result: Any) -> None:
    shown, _ = await outcome(api, handler, Reply(raw=reply))
    assert (shown["state"], shown["result"], shown["result_truncated"]) == ("succeeded", result, False)


async def test_nobody_listening_is_unreachable_and_tried_again(api: Api) -> None:
    queue = await api.queue_to("http://127.0.0.1:1/", retry=AT_ONCE | {"max_attempts": 2})
    task = await api.enqueue(queue)
    await api.until(task["id"], "dead", reason="attempts_exhausted")
    for attempt in await api.attempts(task["id"]):
        assert (attempt["outcome"], attempt["status"], attempt["counted"]) == ("unreachable", None, True)
        assert "refused" in attempt["error"].lower()


async def test_a_name_that_leads_where_calls_may_not_go_sends_nothing(start_api: Any, handler: Handler) -> None:
    api = await start_api(egress_allow=("127.9.9.9/32",))
    port = handler.url.rsplit(":", 1)[1]
    queue = await api.queue_to(f"http://localhost:{port}", retry=AT_ONCE | {"max_attempts": 1})
    task = await api.enqueue(queue)
    await api.until(task["id"], "dead", reason="attempts_exhausted")
    [attempt] = await api.attempts(task["id"])
    assert (attempt["outcome"], attempt["status"]) == ("egress_denied", None) and attempt["error"]
    assert handler.requests == []


# enabled and disabled


async def test_a_410_of_a_task_s_own_handler_disables_that_one(
    api: Api, handler: Handler, start_handler: Callable[[], Awaitable[Handler]]
) -> None:
    second = await start_handler()
    second.answer(Reply(410))
    named, own = await api.handler(handler.url), await api.handler(second.url)
    queue = await api.queue(named)
    task = await api.enqueue(queue, handler=own)
    await api.until(task["id"], "ready", waiting_for="handler_disabled", attempt=0)
    assert good(await api.get(f"/handlers/{own}"))["enabled"] is False
    assert good(await api.get(f"/handlers/{named}"))["enabled"] is True
    await api.until((await api.enqueue(queue))["id"], "succeeded")
    good(await api.post(f"/handlers/{own}/enable"))
    await api.until(task["id"], "succeeded", attempt=1)


async def test_a_disabled_handler_s_tasks_wait_until_it_is_enabled(
    api: Api, other: Api, handler: Handler, start_handler: Callable[[], Awaitable[Handler]]
) -> None:
    second = await start_handler()
    named, own = await api.handler(handler.url), await api.handler(second.url)
    queue = await api.queue(named)
    good(await other.post(f"/handlers/{named}/disable"))
    waiting = await api.enqueue(queue)
    owned = await api.enqueue(queue, handler=own)
    await second.received(task=owned["id"])
    assert (await api.task(waiting["id"]))["waiting_for"] == "handler_disabled"
    assert handler.requests == []
    good(await other.post(f"/handlers/{named}/enable"))
    await handler.received(task=waiting["id"])


async def test_a_handler_made_again_under_a_name_is_another(api: Api, handler: Handler) -> None:
    named = await api.handler(handler.url)
    queue = await api.queue(named)
    task = await api.enqueue(queue)
    await api.until(task["id"], "succeeded")
    good(await api.put(f"/queues/{queue}", json={}))
    assert (await api.delete(f"/handlers/{named}")).status_code == 204
    good(await api.put(f"/handlers/{named}", json={"url": "https://example.com/"}), 201)
    assert (await api.task(task["id"]))["handler"] == named
    waiting = await api.enqueue(queue)
    assert (waiting["handler"], waiting["waiting_for"]) == (None, "worker")
    problem(await api.post(f"/queues/{queue}/tasks", json={"payload": 1, "handler": named}), 422, "invalid", "/handler")
