"""What a task is as a message of SQS, and what SQS's answers mean."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from app.delivery.deliveries import Deliveries
from app.delivery.kinds import Call
from app.delivery.sqs.credentials import CredentialsError
from app.delivery.sqs.target import MAX_MESSAGE_BYTES, answer_of, message_of
from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.transport import Transport
from app.domain.answers import Answer, NoAnswer
from app.domain.breakers import call_of
from app.domain.bridges import AwsCredentials, SqsAddress
from app.domain.options import Options
from app.domain.outcomes import Settlement, Terms, decide
from app.domain.retries import DEFAULT_RETRY
from app.domain.targets import TaskTarget
from tests.handlers import Handler, Reply

NOW = datetime(2026, 11, 21, 22, 44, tzinfo=UTC)
QUEUE = "https://sqs.eu-central-1.amazonaws.com/123456789012/orders"
TO = SqsAddress(
    queue_url=QUEUE, region="eu-central-1", credentials=AwsCredentials("AKIAIOSFODNN7EXAMPLE", "hush", "hush-token")
)
FIFO = SqsAddress(queue_url=f"{QUEUE}.fifo", region="eu-central-1", group_id_from="key")
PLAIN = Call(
    tenant="default",
    url="",
    kind="sqs",
    address=TO,
    task_id="0193a5b0-1111-7000-8000-000000000000",
    queue="mail",
    attempt=2,
    max_attempts=25,
    lease_token="1" * 32,
    task_url="http://127.0.0.1:8080/tasks/x",
    timeout_seconds=30,
    payload=b'{"n":1}',
    secrets=(),
)


def attributes(call: Call, address: SqsAddress = TO) -> dict[str, str]:
    given = message_of(call, address)["MessageAttributes"]
    assert len(given) <= 10 and all(one["DataType"] == "String" for one in given.values())
    return {name: one["StringValue"] for name, one in given.items()}


def outcome(status: int, body: bytes = b"", headers: dict[str, str] | None = None, **terms: Any) -> Settlement:
    answer = answer_of(Answer(status, headers or {}, body))
    assert isinstance(answer, Answer | NoAnswer)
    return decide(answer, Terms(1, DEFAULT_RETRY, NOW, 0.5, **terms))


def refusal(code: str, message: str = "") -> bytes:
    return json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": message}).encode()


def test_a_task_is_one_message_with_its_payload_as_the_body() -> None:
    message = message_of(PLAIN, TO)
    assert message["MessageBody"] == '{"n":1}' and message.keys() == {"MessageBody", "MessageAttributes"}
    assert attributes(PLAIN) == {"sluice-task-id": PLAIN.task_id, "sluice-queue": "mail", "sluice-attempt": "2"}


def test_all_that_a_task_carries_fits_into_ten_attributes() -> None:
    options = Options(
        type="mail.send",
        headers={f"x-{n}": "v" for n in range(20)},
        correlation_id="order/17",
        content_type="image/png",
        binary=True,
    )
    full = replace(PLAIN, options=options, payload=b"\x89PNG", traceparent="00-" + "1" * 32, tracestate="a=b")
    found = attributes(full)
    assert len(found) == 10 and json.loads(found["sluice-headers"]) == options.headers
    assert message_of(full, TO)["MessageBody"] == "iVBORw==" and found["sluice-encoding"] == "base64"
    assert (found["x-correlation-id"], found["sluice-type"]) == ("order/17", "mail.send")


def test_what_sqs_does_not_take_is_escaped_or_replaced() -> None:
    odd = replace(PLAIN, payload='"a\ufffeb\uffff"'.encode(), options=Options(correlation_id="a\x01b"))
    body = message_of(odd, TO)["MessageBody"]
    assert body == '"a\\ufffeb\\uffff"' and json.loads(body) == "a\ufffeb\uffff"
    assert attributes(odd)["x-correlation-id"] == "a\ufffdb"


@pytest.mark.parametrize(
    ("address", "key", "group"),
    [
        (TO, "ada", None),
        (replace(TO, group_id_from="key"), "ada", "ada"),
        (replace(TO, group_id_from="key"), None, None),
        (FIFO, "ada", "ada"),
        (FIFO, None, PLAIN.task_id),
        (replace(FIFO, group_id_from=None), "ada", "mail"),
    ],
)
def test_the_group_is_the_key_if_the_handler_says_so(address: SqsAddress, key: str | None, group: str | None) -> None:
    message = message_of(replace(PLAIN, options=Options(key=key)), address)
    assert message.get("MessageGroupId") == group
    assert message.get("MessageDeduplicationId") == (PLAIN.task_id if address.fifo else None)


def test_a_key_that_is_no_group_id_becomes_one_and_stays_the_same() -> None:
    groups = {
        message_of(replace(PLAIN, options=Options(key=key)), FIFO)["MessageGroupId"]
        for key in ("Ada Lovelace", "Ada Lovelace", "ä" * 200, "x" * 129)
    }
    assert len(groups) == 3 and all(len(group) == 64 for group in groups)


def test_a_message_that_was_taken_is_a_success_with_its_id() -> None:
    done = outcome(200, b'{"MessageId": "m-1", "MD5OfMessageBody": "x", "SequenceNumber": "7"}')
    assert (done.kind, done.result) == ("succeeded", b"m-1")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"MessageId": 7}', b"\xff", b'{"x": ' + b"[" * 100_000])
def test_an_answer_that_is_not_of_sqs_is_no_success(body: bytes) -> None:
    assert outcome(200, body).kind == "retry"
    assert outcome(204, body).kind == "retry" and outcome(302, body).kind == "retry"
    assert outcome(500, body).kind == "retry"


@pytest.mark.parametrize(
    "code", ["QueueDoesNotExist", "AccessDeniedException", "InvalidSignatureException", "KmsDisabled"]
)
def test_what_a_person_can_mend_is_tried_again_with_a_clear_error(code: str) -> None:
    found = outcome(400, refusal(code, "why it was"))
    assert (found.kind, found.outcome) == ("retry", "failed")
    assert found.error is not None and code in found.error and "why it was" in found.error


@pytest.mark.parametrize(
    "body",
    [
        refusal("InvalidMessageContents", "bad characters"),
        refusal(
            "InvalidParameterValue",
            "One or more parameters are invalid. Reason: Message must be shorter than 1024 bytes.",
        ),
    ],
)
def test_a_message_that_can_never_be_sent_is_dead_whatever_the_handler_says(body: bytes) -> None:
    found = outcome(400, body)
    assert (found.kind, found.reason) == ("dead", "fatal_status")


def test_throttling_waits_as_long_as_it_says() -> None:
    found = outcome(400, refusal("RequestThrottled"), {"retry-after": "77"})
    assert (found.kind, found.status, found.delay_seconds) == ("retry", 429, 77.0)
    assert outcome(503, refusal("ServiceUnavailable")).kind == "retry"


def test_headers_and_statuses_that_mean_something_to_webhooks_mean_nothing_here() -> None:
    assert outcome(400, refusal("KmsDisabled"), {"sluice-retry": "no"}).kind == "retry"
    assert outcome(410, b"gone").kind == "retry"
    held = outcome(
        200, b'{"MessageId": "m"}', {"sluice-hold": "60", "content-type": "application/vnd.sluice.tasks+json"}
    )
    assert held.kind == "succeeded"


def test_a_fatal_status_of_the_handler_counts_as_for_webhooks() -> None:
    assert outcome(403, refusal("AccessDeniedException"), fatal_statuses=frozenset({403})).kind == "dead"


@pytest.mark.anyio
@pytest.mark.parametrize("payload", [b'"' + b"x" * MAX_MESSAGE_BYTES + b'"', b""], ids=["too large", "empty"])
async def test_a_message_that_sqs_never_takes_is_dead_and_never_sent(payload: bytes) -> None:
    deliveries = Deliveries(EgressPolicy(), Transport(EgressPolicy()))
    answer = await deliveries.deliver(replace(PLAIN, payload=payload, options=Options(binary=not payload)), NOW)
    assert isinstance(answer, Answer)
    found = decide(answer, Terms(1, DEFAULT_RETRY, NOW, 0.5))
    assert (found.kind, found.reason) == ("dead", "fatal_status") and "nothing was sent" in str(found.error)
    assert call_of(answer) is None, "it says nothing of the service, so it neither opens a breaker nor closes one"
    await deliveries.aclose()


@pytest.mark.anyio
async def test_a_task_with_a_target_is_not_sent_to_a_queue_instead() -> None:
    """Its handler was a webhook when it was enqueued."""
    deliveries = Deliveries(EgressPolicy(), Transport(EgressPolicy()))
    aimed = replace(PLAIN, options=Options(target=TaskTarget(path="/refunds", method="DELETE")))
    answer = await deliveries.deliver(aimed, NOW)
    assert isinstance(answer, NoAnswer) and answer.outcome == "failed" and "nothing was sent" in answer.error
    await deliveries.aclose()


class Slow:
    """A chain that finds credentials when the test says so."""

    def __init__(self, found: AwsCredentials | None) -> None:
        self.found = found
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    def known(self) -> None:
        return None

    async def get(self) -> AwsCredentials:
        self.asked.set()
        await self.go.wait()
        if self.found is None:
            raise CredentialsError("no credentials were found in the usual AWS chain")
        return self.found


def of_the_replica(monkeypatch: pytest.MonkeyPatch, url: str, found: AwsCredentials | None) -> tuple[Slow, Call]:
    """A chain, and a call that needs it."""
    slow = Slow(found)
    monkeypatch.setattr("app.delivery.sqs.credentials.chain", lambda: slow)
    return slow, replace(PLAIN, address=SqsAddress(queue_url=f"{url}/1/q", region="eu-central-1"))


@pytest.mark.anyio
async def test_a_call_waits_for_the_credentials_of_the_replica(
    monkeypatch: pytest.MonkeyPatch, handler: Handler
) -> None:
    handler.script(Reply(200, body=b'{"MessageId": "m-1"}'))
    found = AwsCredentials("AKIAREPLICA", "hush")
    slow, call = of_the_replica(monkeypatch, handler.url.rstrip("/"), found)
    egress = EgressPolicy(["127.0.0.0/8"])
    deliveries = Deliveries(egress, Transport(egress))
    sending = asyncio.create_task(deliveries.deliver(call, NOW))
    await slow.asked.wait()
    assert not handler.requests
    slow.go.set()
    answer = await sending
    assert isinstance(answer, Answer) and answer.body == b"m-1"
    assert "AKIAREPLICA/" in dict(handler.requests[0].headers)["authorization"]
    await deliveries.aclose()


@pytest.mark.anyio
async def test_without_credentials_in_time_nothing_is_sent(monkeypatch: pytest.MonkeyPatch, handler: Handler) -> None:
    egress = EgressPolicy(["127.0.0.0/8"])
    deliveries = Deliveries(egress, Transport(egress))
    slow, call = of_the_replica(monkeypatch, handler.url.rstrip("/"), None)
    late = await deliveries.deliver(replace(call, timeout_seconds=0.05), NOW)
    assert isinstance(late, NoAnswer) and late.outcome == "timeout"
    slow.go.set()
    none = await deliveries.deliver(call, NOW)
    assert none == NoAnswer("failed", "no credentials were found in the usual AWS chain")
    slow, call = of_the_replica(monkeypatch, handler.url.rstrip("/"), AwsCredentials("AKIAREPLICA", "hush"))
    cut = asyncio.create_task(deliveries.deliver(call, NOW))
    await slow.asked.wait()
    cut.cancel()
    await asyncio.gather(cut, return_exceptions=True)
    slow.go.set()
    await asyncio.sleep(0)
    assert not handler.requests
    await deliveries.aclose()


@pytest.mark.anyio
async def test_a_preview_shows_the_request_without_secrets() -> None:
    deliveries = Deliveries(EgressPolicy(), Transport(EgressPolicy()))
    shown = deliveries.preview(PLAIN, NOW)
    assert shown["url"] == "https://sqs.eu-central-1.amazonaws.com/"
    assert shown["headers"]["x-amz-target"] == "AmazonSQS.SendMessage"
    assert json.loads(shown["body"])["QueueUrl"] == QUEUE
    assert "hush" not in str(shown) and "Signature" not in str(shown)
    await deliveries.aclose()
