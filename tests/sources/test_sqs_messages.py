"""What becomes of the parts of an SQS message."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from app.sources.kinds import Message, SourceError
from app.sources.sqs_messages import Received, message_of, xray_traceparent

ARN = "arn:aws:sqs:eu-central-1:123456789012:orders"
ROOT, PARENT = "1-5759e988-bd862e3fe1be46a994272793", "53995c3f42cd8ad8"


def message(**given: Any) -> Message:
    """As it stands in an answer of SQS, with these parts."""
    answer = {"MessageId": "m1", "ReceiptHandle": "handle", "Body": "{}", **given}
    return message_of(msgspec.json.decode(msgspec.json.encode(answer), type=Received), ARN)


def test_the_key_names_the_queue_and_the_message() -> None:
    assert message().key == f"sqs:{ARN}:m1"
    assert (message().handle, message(Body="ä").body) == ("handle", "ä".encode())


def test_attributes_become_headers_whatever_their_type() -> None:
    sent = {
        "Tenant": {"DataType": "String", "StringValue": "ada"},
        "Count": {"DataType": "Number", "StringValue": "7"},
        "Seal": {"DataType": "Binary", "BinaryValue": "AAE="},
        "Empty": {"DataType": "String", "StringValue": ""},
        "Odd": {"DataType": "String"},
    }
    assert message(MessageAttributes=sent).headers == {"Tenant": "ada", "Count": "7", "Seal": "AAE=", "Empty": ""}


def test_a_group_and_the_instant_of_sending_come_from_what_sqs_says() -> None:
    given = message(Attributes={"MessageGroupId": "g1", "SentTimestamp": "1764150000123", "SenderId": "AIDA"})
    assert given.group == "g1"
    assert given.sent_at == datetime(2025, 11, 26, 9, 40, 0, 123_000, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "-1", "soon", "9" * 15, "9" * 30, "1e3", "٣"])
def test_an_instant_that_is_none_is_left_out(text: str) -> None:
    assert message(Attributes={"SentTimestamp": text}).sent_at is None


@pytest.mark.parametrize(
    "name", ["correlation_id", "Correlation-Id", "x-correlation-id", "correlationId", "CORRELATION.ID"]
)
def test_the_correlation_id_is_found_under_the_names_in_use(name: str) -> None:
    assert message(MessageAttributes={name: {"DataType": "String", "StringValue": "c1"}}).correlation_id == "c1"


def test_the_trace_of_the_sender_goes_before_that_of_the_network() -> None:
    own = "00-11111111111111111111111111111111-2222222222222222-01"
    sent = {"traceparent": own, "tracestate": "a=b"}
    given = message(
        Attributes={"AWSTraceHeader": f"Root={ROOT};Parent={PARENT};Sampled=1"},
        MessageAttributes={name: {"DataType": "String", "StringValue": value} for name, value in sent.items()},
    )
    assert (given.traceparent, given.tracestate) == (own, "a=b")
    assert given.headers["x-amzn-trace-id"] == f"Root={ROOT};Parent={PARENT};Sampled=1"


def test_the_state_of_a_trace_does_not_come_without_its_parent() -> None:
    sent = {"tracestate": {"DataType": "String", "StringValue": "a=b"}}
    given = message(Attributes={"AWSTraceHeader": f"Root={ROOT};Parent={PARENT}"}, MessageAttributes=sent)
    assert given.traceparent is not None and given.tracestate is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (f"Root={ROOT};Parent={PARENT};Sampled=1", f"00-5759e988bd862e3fe1be46a994272793-{PARENT}-01"),
        (f"Sampled=0; Parent={PARENT} ; Root={ROOT}", f"00-5759e988bd862e3fe1be46a994272793-{PARENT}-00"),
        (
            f"Self=1-67891234-12456789abcdef012345678;Root={ROOT};Parent={PARENT}",
            f"00-5759e988bd862e3fe1be46a994272793-{PARENT}-00",
        ),
        (f"Root={ROOT.upper()};Parent={PARENT.upper()};Sampled=?", f"00-5759e988bd862e3fe1be46a994272793-{PARENT}-00"),
        (f"Root={ROOT}", None),
        (f"Root={ROOT};Parent=short", None),
        (f"Root=2-{ROOT[2:]};Parent={PARENT}", None),
        ("", None),
        (";;=;", None),
        (None, None),
    ],
)
def test_a_trace_header_of_aws_becomes_a_w3c_one(header: str | None, expected: str | None) -> None:
    assert xray_traceparent(header) == expected


@pytest.mark.parametrize("without", ["MessageId", "ReceiptHandle"])
def test_a_message_that_nobody_could_acknowledge_is_a_failure_of_the_source(without: str) -> None:
    with pytest.raises(SourceError, match="without its id or its receipt handle"):
        message(**{without: ""})
