"""The operations of SQS over the transport of deliveries, against a server of SQS."""

import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest

from app.delivery.sqs.client import SqsClient, SqsFailure, endpoint_of, failure_of
from app.delivery.sqs.credentials import Chain, CredentialsError
from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.transport import Transport
from app.domain.answers import Answer
from app.domain.bridges import AwsCredentials

if TYPE_CHECKING:
    from tests.sqs_server import SqsServer

REGION = "eu-central-1"

GIVEN = AwsCredentials("AKIAIOSFODNN7EXAMPLE", "not-checked")
Open = Callable[..., SqsClient]

pytestmark = pytest.mark.anyio


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    opened = Transport(EgressPolicy(["127.0.0.0/8"]))
    yield opened
    await opened.aclose()


def test_without_an_endpoint_the_server_of_the_queue_url_is_asked() -> None:
    queue = "https://sqs.eu-west-1.amazonaws.com/123456789012/orders"
    assert endpoint_of(queue, None) == "https://sqs.eu-west-1.amazonaws.com/"
    assert endpoint_of(queue, "https://vpce-1.example") == "https://vpce-1.example"


@pytest.mark.parametrize(
    ("status", "body", "code", "permanent", "throttled"),
    [
        (
            400,
            b'{"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "gone"}',
            "QueueDoesNotExist",
            True,
            False,
        ),
        (403, b'{"__type": "com.amazon.coral.service#AccessDeniedException"}', "AccessDeniedException", True, False),
        (403, b"<html>a proxy</html>", "", True, False),
        (400, b'{"__type": "com.amazonaws.sqs#RequestThrottled", "message": "slow"}', "RequestThrottled", False, True),
        (403, b'{"__type": "x#ThrottlingException"}', "ThrottlingException", False, True),
        (429, b"", "", False, True),
        (500, b"[1, 2", "", False, False),
        (503, b'{"__type": 7, "message": ["no text"]}', "", False, False),
        (500, b"\xff\xfe", "", False, False),
        (500, b"[" * 100_000, "", False, False),
    ],
)
def test_an_error_says_whether_a_person_must_mend_it(
    status: int, body: bytes, code: str, permanent: bool, throttled: bool
) -> None:
    failure = failure_of("SendMessage", Answer(status, {}, body))
    assert (failure.code, failure.status) == (code, status)
    assert (failure.permanent, failure.throttled) == (permanent, throttled)
    assert "SendMessage" in str(failure)


def test_an_error_that_repeats_what_was_signed_is_told_without_the_session_token() -> None:
    signed = "POST\n/\n\nx-amz-security-token:hush+hush/hush==\nx-amz-target:AmazonSQS.SendMessage"
    words = f"The Canonical String for this request should have been '{signed}'"
    body = json.dumps({"__type": "x#InvalidSignatureException", "message": words})
    told = str(failure_of("SendMessage", Answer(403, {}, body.encode())))
    assert "hush" not in told and "AmazonSQS.SendMessage" in told


@pytest.mark.ci
async def test_a_message_goes_out_and_comes_back(sqs: "SqsServer", transport: Transport) -> None:
    queue = sqs.queue()
    given = sqs.user("sqs:*")
    client = SqsClient(transport, queue.url, REGION, None, AwsCredentials(**given))
    with sqs.guarded():  # so that the signature is verified
        sent = json.loads(await client.call("SendMessage", {"MessageBody": "héllo"}))
        found = json.loads(await client.call("ReceiveMessage", {"MaxNumberOfMessages": 10}))
    assert [(one["MessageId"], one["Body"]) for one in found["Messages"]] == [(sent["MessageId"], "héllo")]


@pytest.mark.ci
async def test_a_wrong_secret_is_refused_and_not_repeated(sqs: "SqsServer", transport: Transport) -> None:
    queue = sqs.queue()
    wrong = AwsCredentials(sqs.user("sqs:*")["access_key_id"], "wrong-secret")
    with sqs.guarded(), pytest.raises(SqsFailure) as failure:
        await SqsClient(transport, queue.url, REGION, None, wrong).call("SendMessage", {"MessageBody": "x"})
    assert failure.value.code == "InvalidSignatureException" and failure.value.permanent
    assert "wrong-secret" not in str(failure.value)


@pytest.mark.ci
async def test_an_answer_that_is_too_long_is_a_failure(sqs: "SqsServer", transport: Transport) -> None:
    from tests.sqs_server import Fault

    queue = sqs.queue()
    sqs.before = lambda asked: Fault.document({"Messages": ["x" * 5_000]})
    client = SqsClient(transport, queue.url, REGION, None, GIVEN)
    with pytest.raises(SqsFailure, match="more than 1000 bytes"):
        await client.call("ReceiveMessage", {}, max_reply_bytes=1000)


async def test_a_server_that_nobody_may_call_or_that_is_not_there_is_a_failure(transport: Transport) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/1/q"
        with pytest.raises(SqsFailure, match="could not connect"):
            await SqsClient(transport, url, REGION, None, GIVEN).call("SendMessage", {})
    with pytest.raises(SqsFailure, match="not a public address"):
        await SqsClient(transport, "http://10.0.0.1/1/q", REGION, None, GIVEN).call("SendMessage", {})


async def test_a_replica_without_the_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("importlib.import_module", absent)
    with pytest.raises(CredentialsError, match=r"install sluice-queue\[aws\]"):
        await Chain().get()


async def test_the_chain_reads_the_environment_again_and_says_when_it_finds_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    chain = Chain()
    with pytest.raises(Exception, match="no credentials were found"):
        await chain.get()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAONE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    chain = Chain()
    assert chain.known() is None
    assert (await chain.get()).access_key_id == "AKIAONE"
    assert chain.known() == AwsCredentials("AKIAONE", "secret")
