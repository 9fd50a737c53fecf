"""What a handler receives, to the header."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from standardwebhooks.webhooks import Webhook

from app.delivery.deliveries import Deliveries
from app.delivery.kinds import Call
from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.requests import _letterhead, headers_of, render
from app.delivery.webhook.signing import new_secret
from app.delivery.webhook.transport import Transport
from app.delivery.webhook.urls import check_url
from app.domain.answers import Answer, NoAnswer
from app.domain.options import Options
from app.domain.targets import TaskTarget

from .servers import Peer, answer_ok, serve

NOW = datetime(2026, 11, 21, 22, 44, 0, 123456, UTC)
SECRETS = (new_secret(), new_secret())
PLAIN = Call(
    tenant="t",
    url="http://127.0.0.1/hook",
    task_id="0193a5b0-1111-7000-8000-000000000000",
    queue="mail",
    attempt=2,
    max_attempts=25,
    lease_token="5b4a1f0e-0000-4000-8000-000000000000",
    task_url="http://127.0.0.1:8080/tasks/0193a5b0-1111-7000-8000-000000000000",
    timeout_seconds=30.5,
    payload=b'{"n":1}',
    secrets=SECRETS[:1],
)


@pytest.fixture
def webhooks(loopback: EgressPolicy, transport: Transport) -> Deliveries:
    return Deliveries(loopback, transport)


def test_a_plain_task_sends_these_headers_and_no_empty_ones() -> None:
    headers = headers_of(render(PLAIN, NOW)[1])
    signature = headers.pop("webhook-signature")
    assert signature.startswith("v1,")
    assert " " not in signature
    assert headers == {
        "user-agent": "Sluice",
        "content-type": "application/json",
        "webhook-id": PLAIN.task_id,
        "webhook-timestamp": str(int(NOW.timestamp())),
        "idempotency-key": PLAIN.task_id,
        "sluice-queue": "mail",
        "sluice-attempt": "2",
        "sluice-max-attempts": "25",
        "sluice-deadline": "2026-11-21T22:44:30.623Z",
        "sluice-lease-token": PLAIN.lease_token,
        "sluice-task-url": PLAIN.task_url,
    }


def test_all_that_a_task_may_have_is_sent() -> None:
    scheduled_for = datetime(2026, 11, 21, 23, 44, tzinfo=timezone(timedelta(hours=1)))
    call = replace(
        PLAIN,
        options=Options(
            type="mail.send",
            cursor="page 2",
            schedule="nightly",
            scheduled_for=scheduled_for,
            correlation_id="order/17?x=100%",
        ),
        batch="b1",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        tracestate="a=1,b=2",
    )
    headers = headers_of(render(call, NOW)[1])
    assert headers["sluice-type"] == "mail.send"
    assert headers["sluice-cursor"] == "page 2"
    assert headers["sluice-schedule"] == "nightly"
    assert headers["sluice-scheduled-for"] == "2026-11-21T22:44:00.000Z"
    assert "sluice-scheduled-for-local" not in headers, "of a task without its schedule's zone"
    assert headers["sluice-batch"] == "b1"
    assert headers["traceparent"] == call.traceparent
    assert headers["tracestate"] == "a=1,b=2"
    assert headers["x-correlation-id"] == "order/17?x=100%"


def test_the_handler_s_header_wins_over_the_task_s_and_neither_replaces_sluice_s() -> None:
    call = replace(
        PLAIN,
        options=Options(
            headers={"Authorization": "mine", "X-Task": "t", "webhook-id": "forged", "Sluice-Attempt": "9"}
        ),
        handler_headers=tuple(
            {"authorization": "operator's", "X-Handler": "h", "User-Agent": "Own", "content-length": "0"}.items()
        ),
    )
    headers = headers_of(render(call, NOW)[1])
    assert headers["authorization"] == "operator's"
    assert (headers["x-task"], headers["x-handler"], headers["user-agent"]) == ("t", "h", "Own")
    assert (headers["webhook-id"], headers["sluice-attempt"]) == (PLAIN.task_id, "2")
    assert "content-length" not in headers


def test_names_that_a_handler_may_take_for_one_another_are_one_name() -> None:
    call = replace(
        PLAIN,
        options=Options(headers={"x_api_key": "mine", "webhook_signature": "v1,forged", "x_task": "t"}),
        handler_headers=tuple({"x-api-key": "operator's", "sluice_attempt": "9"}.items()),
    )
    headers = headers_of(render(call, NOW)[1])
    assert (headers["x-api-key"], headers["x_task"]) == ("operator's", "t")
    assert not {"x_api_key", "webhook_signature", "sluice_attempt"} & set(headers)


@given(st.text(min_size=1, max_size=60))
def test_any_text_becomes_a_header_that_can_be_sent_and_read_back(text: str) -> None:
    value = headers_of(render(replace(PLAIN, options=Options(type=text, correlation_id=text)), NOW)[1])["sluice-type"]
    assert value.isascii()
    assert value.isprintable()
    assert value == value.strip()
    assert text in (value, unquote(value)) or not text.isascii()
    if not any("\ud800" <= char <= "\udfff" for char in text):
        assert text in (value, unquote(value))


def test_nothing_secret_is_in_the_repr_of_a_call() -> None:
    shown = repr(replace(PLAIN, handler_headers=tuple({"authorization": "hush"}.items()), payload=b"private"))
    for hidden in (PLAIN.secrets[0], PLAIN.lease_token, "hush", "private"):
        assert hidden not in shown


@pytest.mark.anyio
async def test_both_signatures_of_a_rotation_verify_at_the_handler_over_the_bytes_it_got(webhooks: Deliveries) -> None:
    now = datetime.now(UTC)
    async with serve(answer_ok) as server:
        call = replace(PLAIN, url=server.url, secrets=SECRETS, payload='{"é": [1, 2.50]}'.encode())
        got = await webhooks.deliver(call, now)
    assert isinstance(got, Answer)
    assert (got.status, got.body) == (200, b"ok")
    (request,) = server.requests
    assert request.body == call.payload
    assert len(request.headers) == len(dict(request.headers))
    for secret in SECRETS:
        Webhook(secret).verify(request.body, dict(request.headers))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("url", "outcome"),
    [
        ("http://10.0.0.1/", "egress_denied"),
        ("http://169.254.169.254/latest/meta-data/", "egress_denied"),
        ("http://127.0.0.1:1/", "unreachable"),
        ("nonsense", "unreachable"),
    ],
)
async def test_what_fails_is_a_value_with_its_reason(webhooks: Deliveries, url: str, outcome: str) -> None:
    got = await webhooks.deliver(replace(PLAIN, url=url), NOW)
    assert isinstance(got, NoAnswer)
    assert (got.outcome, bool(got.error)) == (outcome, True)


@pytest.mark.anyio
async def test_an_answer_to_head_ends_with_its_head_and_a_304_too_whatever_length_it_announces(
    webhooks: Deliveries,
) -> None:
    answer = b"HTTP/1.1 %d Answer\r\ncontent-length: 2\r\n\r\n"

    async def behave(peer: Peer) -> None:
        while True:
            request = await peer.read()
            head = request.line.startswith("HEAD")
            await peer.send(answer % (304 if "/not-modified" in request.line else 200))
            if not head and "/not-modified" not in request.line:
                await peer.send(b"ok")

    async def ask(**target: Any) -> Answer | NoAnswer:
        call = replace(
            PLAIN, url=server.url, targets="path", options=Options(target=TaskTarget(**target)), payload=b"null"
        )
        return await webhooks.deliver(call, datetime.now(UTC))

    async with serve(behave) as server:
        got = [await ask(method=method, path="/x") for method in ("GET", "HEAD", "HEAD", "GET", "POST")]
        got.append(await ask(method="GET", path="/not-modified"))
        got.append(await ask(method="GET", path="/x"))
    headers = {"content-length": "2"}
    assert got == [
        *(Answer(200, headers, body) for body in (b"ok", b"", b"", b"ok", b"ok")),
        Answer(304, headers, b""),
        Answer(200, headers, b"ok"),
    ]
    assert server.connections == 3, "an answer to HEAD ends its connection, and no other does"


def test_calls_with_targets_push_nothing_out_of_the_caches_of_plain_calls() -> None:
    render(PLAIN, NOW)
    before = _letterhead.cache_info().currsize, check_url.cache_info().currsize
    for number in range(5):
        target = TaskTarget(url=f"http://host{number}.example/x?n={number}")
        render(replace(PLAIN, targets="any", options=Options(target=target)), NOW)
        render(replace(PLAIN, options=Options(content_type=f"text/x-{number}", binary=True)), NOW)
    assert (_letterhead.cache_info().currsize, check_url.cache_info().currsize) == before
