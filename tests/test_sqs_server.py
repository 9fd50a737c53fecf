"""The server of tests behaves as SQS where tests rely on it."""

import pytest
from botocore.exceptions import ClientError
from botocore.session import Session

from tests.sqs_server import REGION, Fault, SqsServer, failed_entries

pytestmark = pytest.mark.ci


def client(sqs: SqsServer, access_key_id: str = "any", secret_access_key: str = "any"):  # type: ignore[no-untyped-def]
    return Session().create_client(
        "sqs",
        region_name=REGION,
        endpoint_url=sqs.url,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
    )


def test_messages_hide_while_they_are_received_and_come_again(sqs: SqsServer) -> None:
    queue = sqs.queue()
    sent = queue.send("body", trace="Root=1-5759e988-bd862e3fe1be46a994272793")
    boto = client(sqs)
    asked = {"QueueUrl": queue.url, "MessageSystemAttributeNames": ["All"]}
    (message,) = boto.receive_message(**asked)["Messages"]
    assert (message["MessageId"], message["Body"]) == (sent, "body")
    assert message["Attributes"]["AWSTraceHeader"] == "Root=1-5759e988-bd862e3fe1be46a994272793"
    assert queue.hidden() == 1 and "Messages" not in boto.receive_message(**asked)
    queue.show_again()
    (again,) = boto.receive_message(**asked)["Messages"]
    assert (again["MessageId"], again["Attributes"]["ApproximateReceiveCount"]) == (sent, "2")
    boto.delete_message(QueueUrl=queue.url, ReceiptHandle=again["ReceiptHandle"])
    assert queue.left() == [] and sqs.times("ReceiveMessage") == 3


def test_requests_fail_as_the_test_says(sqs: SqsServer) -> None:
    queue = sqs.queue()
    boto = client(sqs)
    sqs.before = lambda asked: Fault.error(400, "RequestThrottled") if asked.operation == "SendMessage" else None
    with pytest.raises(ClientError, match="made to fail"):
        boto.send_message(QueueUrl=queue.url, MessageBody="x")
    sqs.before = lambda asked: failed_entries(asked.given["Entries"], "InternalError", sender_fault=False)
    entries = [{"Id": "0", "ReceiptHandle": "x"}]
    failed = boto.delete_message_batch(QueueUrl=queue.url, Entries=entries)["Failed"]
    assert failed == [{"Id": "0", "SenderFault": False, "Code": "InternalError", "Message": "InternalError"}]


def test_credentials_are_checked_while_guarded_and_end(sqs: SqsServer) -> None:
    queue = sqs.queue()
    given = sqs.user("sqs:SendMessage")
    with sqs.guarded():
        client(sqs, **given).send_message(QueueUrl=queue.url, MessageBody="x")
        refuses(sqs, queue.url, given, "AccessDeniedException")
        refuses(sqs, queue.url, {**given, "secret_access_key": "another"}, "InvalidSignatureException")
        sqs.end_credentials(given["access_key_id"])
        refuses(sqs, queue.url, given, "UnrecognizedClientException")
    assert len(queue.left()) == 1


def refuses(sqs: SqsServer, url: str, credentials: dict[str, str], code: str) -> None:
    with pytest.raises(ClientError) as refused:
        client(sqs, **credentials).receive_message(QueueUrl=url)
    assert refused.value.response["Error"]["Code"] == code
