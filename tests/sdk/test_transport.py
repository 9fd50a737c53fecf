"""Requests over real sockets: what is repeated, how long it takes, what is told, and what is kept open."""

import asyncio
import json
import logging
import pickle
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from time import monotonic
from typing import Any

import pytest

from sluice_client.api import Api, SyncApi, reply
from sluice_client.errors import ConnectionFailed, Invalid, NotFound, NotSluice, QueueFull, SluiceError, Unavailable
from tests.sdk.forms import DROP, FORMS, Answer, call, client, flaky

Form = type[Api] | type[SyncApi]
JSON = {"content-type": "application/json"}
PROBLEM = {"content-type": "application/problem+json"}
KEY = "slk_secret-of-the-test"

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("form", FORMS), pytest.mark.usefixtures("quick")]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of milliseconds."""
    monkeypatch.setattr("sluice_client.retrying.FIRST_PAUSE_SECONDS", 0.001)


def problem(status: int, code: str, **headers: str) -> Answer:
    body = {"type": "", "title": "", "status": status, "code": code, "detail": f"it is {code}", "errors": []}
    return Answer(status, PROBLEM | headers, json.dumps(body).encode())


FAILURES: list[Answer | str] = [
    DROP,
    problem(429, "rate_limited"),
    Answer(502),
    Answer(504),
    problem(503, "unavailable"),
]


async def test_a_get_is_repeated_until_it_is_answered(form: Form) -> None:
    async with flaky(*FAILURES) as server, client(form, server.url) as api:
        assert await call(api, "queues.get", "mail") == {}
        assert [asked.target for asked in server.asked] == ["/queues/mail"] * 6


@pytest.mark.parametrize("failure", FAILURES, ids=["drop", "429", "502", "504", "503"])
async def test_a_post_without_a_key_is_sent_once(form: Form, failure: Answer | str) -> None:
    async with flaky(failure) as server, client(form, server.url) as api:
        with pytest.raises(SluiceError):
            await call(api, "tasks.enqueue", "mail", payload=1)
        assert len(server.asked) == 1
        server.script = [failure]
        with pytest.raises(SluiceError):
            await call(
                api, "tasks.enqueue_many", "mail", tasks=[{"payload": 1, "idempotency_key": "a"}, {"payload": 2}]
            )
        assert len(server.asked) == 2


async def test_what_a_key_or_a_lease_identifies_is_repeated_as_it_was(form: Form) -> None:
    async with flaky(*FAILURES) as server, client(form, server.url) as api:
        await call(api, "tasks.enqueue", "mail", payload={"to": "ada"}, idempotency_key="a")
        assert len(server.asked) == 6 and len({asked.body for asked in server.asked}) == 1
        server.script, server.asked = [DROP], []
        await call(api, "actions.start", kind="cancel", filter={"queue": "mail"}, idempotency_key="a")
        assert [asked.headers["idempotency-key"] for asked in server.asked] == ["a", "a"]
        for name, named in (("complete", {}), ("fail", {"error": "x"}), ("release", {}), ("renew", {"seconds": 9})):
            server.script, server.asked = [DROP], []
            await call(api, f"leases.{name}", "t", lease_token="x", **named)
            assert len(server.asked) == 2


async def test_other_refusals_are_raised_at_once(form: Form) -> None:
    for answer, error in (
        (problem(404, "queue_not_found"), NotFound),
        (problem(422, "invalid"), Invalid),
        (problem(500, "internal"), SluiceError),
        (Answer(301, {"location": "/elsewhere"}), NotSluice),
        (Answer(200, {"content-type": "text/html"}, b"<html>"), NotSluice),
        (Answer(200, JSON, b"{"), NotSluice),
        (Answer(418, PROBLEM, b"not json"), NotSluice),
        (Answer(418, PROBLEM, b'{"code": 1}'), NotSluice),
    ):
        async with flaky(answer) as server, client(form, server.url) as api:
            with pytest.raises(error) as raised:
                await call(api, "queues.get", "mail")
            assert len(server.asked) == 1 and str(answer.status) in str(raised.value)


@pytest.mark.parametrize(
    "told", [lambda: "1", lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)]
)
@pytest.mark.ci
async def test_a_repeat_waits_as_long_as_it_was_told(form: Form, told: Callable[[], str]) -> None:
    async with flaky(problem(503, "unavailable", **{"retry-after": told()})) as server, client(form, server.url) as api:
        started = monotonic()
        await call(api, "queues.get", "mail")
        assert monotonic() - started >= 0.9 and len(server.asked) == 2


async def test_what_a_proxy_says_under_200_settles_nothing(form: Form) -> None:
    async with flaky() as server, client(form, server.url) as api:
        for answer in (Answer(200, {"content-type": "text/html"}, b"<html>"), Answer(200), Answer(302)):
            server.script = [answer]
            with pytest.raises(NotSluice):
                await call(api.transport, "request", "POST", "/tasks/t/complete", repeatable=False)
        server.script = [Answer(204)]
        assert await call(api, "queues.delete", "mail") is None


async def test_a_call_gives_up_rather_than_wait_beyond_its_timeout(form: Form) -> None:
    async with flaky(problem(429, "queue_full", **{"retry-after": "60"})) as server:
        async with client(form, server.url, timeout=5.0) as api:
            with pytest.raises(QueueFull) as raised:
                await call(api, "queues.get", "mail")
        assert len(server.asked) == 1 and raised.value.retry_after == 60


async def test_repeats_end_with_the_timeout(form: Form) -> None:
    async with flaky(*[problem(503, "unavailable")] * 10_000) as server, client(form, server.url, timeout=0.1) as api:
        started = monotonic()
        with pytest.raises(Unavailable):
            await call(api, "queues.get", "mail")
        assert 2 < len(server.asked) < 10_000 and monotonic() - started < 5


async def test_silence_ends_with_the_timeout_and_a_wait_comes_on_top(form: Form) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with client(form, url, timeout=0.05) as api:
            for wait_seconds in (0, 0.1):
                started = monotonic()
                with pytest.raises(ConnectionFailed, match="ReadTimeout"):
                    await call(api, "tasks.get", "t", wait_seconds=wait_seconds)
                assert 0.04 + wait_seconds <= monotonic() - started < 5


async def test_nobody_there_is_told_with_the_address_and_without_the_key(
    form: Form, caplog: pytest.LogCaptureFixture
) -> None:
    async with client(form, "http://127.0.0.1:9", KEY, timeout=0.05) as api:
        with caplog.at_level(logging.DEBUG), pytest.raises(ConnectionFailed, match=r"http://127\.0\.0\.1:9") as raised:
            await call(api, "queues.get", "mail")
        shown = "".join(traceback.format_exception(raised.value)) + repr(api) + repr(api.transport) + caplog.text
        assert "will be repeated" in caplog.text and "slk_" not in shown


async def test_an_address_or_a_key_that_cannot_be_used_is_refused_without_being_repeated(form: Form) -> None:
    for url in (
        "127.0.0.1:8080",
        "ftp://h",
        "http://",
        "http://u:slk_x@h",
        "http://[slk_x",
        "http://slk_ x",
        "http://h?k=slk_x",
        "http://h#slk_x",
    ):
        with pytest.raises(ValueError, match="URL") as raised:
            form(url)
        assert "slk_" not in str(raised.value)
    for key in ("slk_a b", "slk_\n", "slk_é"):
        with pytest.raises(ValueError, match="API key") as raised:
            form(None, key)
        assert "slk_" not in str(raised.value)


async def test_address_and_key_come_from_the_environment(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    async with flaky() as server:
        monkeypatch.setenv("SLUICE_URL", f"{server.url}/")
        monkeypatch.setenv("SLUICE_KEY", KEY)
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        async with client(form, None) as api:  # type: ignore[arg-type]
            await call(api, "queues.get", "mail")
        (asked,) = server.asked
        assert asked.headers["authorization"] == f"Bearer {KEY}"
        assert asked.headers["user-agent"].startswith("sluice-client/")
    monkeypatch.delenv("SLUICE_URL")
    assert form().transport.url == "http://127.0.0.1:8080"


async def test_what_cannot_be_sent_is_refused_before_it_is(form: Form) -> None:
    async with flaky() as server, client(form, server.url) as api:
        for name, arguments, named in (
            ("queues.get", ("",), {}),
            ("tasks.enqueue", ("mail",), {"payload": float("nan")}),
            ("tasks.enqueue", ("mail",), {"payload": "\ud800"}),
            ("tasks.enqueue", ("mail",), {"payload": 1, "run_at": datetime(2026, 1, 1)}),
            ("queues.put", ("mail",), {"if_match": "a\nb"}),
        ):
            with pytest.raises(ValueError):  # noqa: PT011
                await call(api, name, *arguments, **named)
        with pytest.raises(TypeError, match="object"):
            await call(api, "tasks.enqueue", "mail", payload=object())
        assert not server.asked


async def test_names_stay_one_segment_of_the_path(form: Form) -> None:
    async with flaky() as server, client(form, server.url) as api:
        for key in ("a/b", "..", ".", "a?b#c", "é %", "a;b"):
            await call(api, "limits.get_key", "x", key)
        assert [asked.target.removeprefix("/limits/x/keys/") for asked in server.asked] == [
            "a%2Fb",
            "%2E%2E",
            "%2E",
            "a%3Fb%23c",
            "%C3%A9%20%25",
            "a%3Bb",
        ]


async def test_times_are_sent_in_utc(form: Form) -> None:
    at = datetime(2026, 11, 26, 13, 0, tzinfo=timezone(timedelta(hours=1)))
    async with flaky() as server, client(form, server.url) as api:
        await call(api, "tasks.enqueue", "mail", payload=1, run_at=at)
        pages = await call(api, "tasks.list", ended_from=at)
        await call(pages, "page")
        assert json.loads(server.asked[0].body)["run_at"] == "2026-11-26T12:00:00Z"
        assert server.asked[1].target == "/tasks?limit=200&ended_from=2026-11-26T12%3A00%3A00Z"


async def test_a_huge_body_is_read_whole(form: Form) -> None:
    body = json.dumps({"text": "x" * 20_000_000}).encode()
    async with flaky(Answer(200, JSON, body)) as server, client(form, server.url) as api:
        assert len((await call(api, "queues.get", "mail"))["text"]) == 20_000_000


async def test_a_connection_is_reused_and_closed_with_the_client(form: Form) -> None:
    async with flaky() as server:
        async with client(form, server.url) as api:
            for _ in range(3):
                await call(api, "queues.get", "mail")
            assert {asked.connection for asked in server.asked} == {1}
        await call(api, "queues.get", "mail")
        assert server.asked[-1].connection == 2


async def test_a_child_made_by_fork_opens_connections_of_its_own(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    if form is Api:
        return  # its child has no event loop, and a new one gets connections of its own
    async with flaky() as server, client(form, server.url) as api:
        await call(api, "queues.get", "mail")
        with monkeypatch.context() as child:
            child.setattr("os.getpid", lambda: 1)
            await call(api, "queues.get", "mail")
            await asyncio.to_thread(api.close)
        await call(api, "queues.get", "mail")
        assert [asked.connection for asked in server.asked] == [1, 2, 1]


async def test_a_repeat_waits_for_no_longer_than_what_is_left(form: Form) -> None:
    async with flaky(DROP, DROP) as server, client(form, server.url) as api:
        await call(api, "tasks.get", "t", wait_seconds=9)
        waits = [float(asked.target.partition("=")[2]) for asked in server.asked]
        assert 9 == waits[0] > waits[1] > waits[2] > 0


async def test_the_head_of_a_reply_stays_with_it(form: Form) -> None:
    headers = JSON | {"etag": '"v1"', "idempotent-replayed": "true", "location": "/tasks/1", "x-request-id": "r"}
    async with flaky(Answer(200, headers, b'{"id": "1"}')) as server, client(form, server.url) as api:
        view = await call(api, "tasks.enqueue", "mail", payload=1)
    head = reply(pickle.loads(pickle.dumps(view)))
    assert (head.status, head.etag, head.replayed, head.unique_held) == (200, '"v1"', True, False)
    assert (head.location, head.request_id) == ("/tasks/1", "r")
    with pytest.raises(TypeError):
        reply(dict(view))


def test_one_client_serves_event_loops_and_threads(form: Form) -> None:
    started, stop = threading.Event(), threading.Event()
    found: dict[str, Any] = {}

    async def serve() -> None:
        async with flaky() as server:
            found["server"] = server
            started.set()
            await asyncio.to_thread(stop.wait)

    serving = threading.Thread(target=asyncio.run, args=(serve(),))
    serving.start()
    started.wait()
    try:
        api = form(found["server"].url)

        async def several() -> None:
            await asyncio.gather(*(call(api, "queues.get", "mail") for _ in range(5)))

        threads = [threading.Thread(target=lambda: [asyncio.run(several()) for _ in range(3)]) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found["server"].asked) == 45
    finally:
        stop.set()
        serving.join()
