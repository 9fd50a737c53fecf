"""What becomes of the parts of an SQS message: what identifies it, orders it and traces it, and what only travels along.

The names are those of the AWS API reference (ReceiveMessage, Message, MessageAttributeValue). Everything here comes from outside,
so a part that is not what AWS says is left out, and a message without its id or its handle is a failure of the source.
"""

import re
from datetime import UTC, datetime

import msgspec

from app.domain.headers import folded
from app.sources.kinds import Message, SourceError

CORRELATION_NAMES = ("x-correlation-id", "correlation-id", "correlationid", "sluice-correlation-id")
"""Attributes whose value is the correlation id, in their folded form and in order of preference."""
TRACE_HEADER = "x-amzn-trace-id"
"""The header by which AWS services hand on what SQS keeps as AWSTraceHeader."""

_XRAY_ROOT = re.compile(r"1-([0-9a-f]{8})-([0-9a-f]{24})", re.ASCII | re.IGNORECASE)
_XRAY_PARENT = re.compile(r"[0-9a-f]{16}", re.ASCII | re.IGNORECASE)
_MILLISECONDS = re.compile(r"[0-9]{1,15}", re.ASCII)


class Attribute(msgspec.Struct, frozen=True, rename="pascal"):
    """A message attribute. A number is a string as well; bytes are in base64, as they stand in the answer."""

    string_value: str | None = None
    binary_value: str | None = None


class Received(msgspec.Struct, frozen=True, rename="pascal"):
    """A message of an answer to ReceiveMessage."""

    message_id: str
    receipt_handle: str
    body: str = ""
    attributes: dict[str, str] = {}
    """Those that SQS itself gives."""
    message_attributes: dict[str, Attribute] = {}


def message_of(received: Received, arn: str) -> Message:
    """Return what the source hands on. Raises SourceError if the message cannot be told from others."""
    if not received.message_id or not received.receipt_handle:
        raise SourceError("the server has sent a message without its id or its receipt handle")
    sent = {
        name: attribute.string_value if attribute.string_value is not None else attribute.binary_value
        for name, attribute in received.message_attributes.items()
    }
    headers = {name: value for name, value in sent.items() if value is not None}
    by_fold = {folded(name): value for name, value in reversed(headers.items())}
    xray = received.attributes.get("AWSTraceHeader")
    traceparent = by_fold.get("traceparent")
    return Message(
        key=f"sqs:{arn}:{received.message_id}",
        body=received.body.encode("utf-8", "replace"),
        handle=received.receipt_handle,
        headers=headers if xray is None else {TRACE_HEADER: xray, **headers},
        group=received.attributes.get("MessageGroupId"),
        correlation_id=next((by_fold[name] for name in CORRELATION_NAMES if name in by_fold), None),
        traceparent=traceparent or xray_traceparent(xray),
        tracestate=by_fold.get("tracestate") if traceparent else None,
        sent_at=_instant(received.attributes.get("SentTimestamp")),
    )


def xray_traceparent(header: str | None) -> str | None:
    """Return an AWSTraceHeader (`Root=1-<8 hex>-<24 hex>;Parent=<16 hex>;Sampled=1`) as W3C Trace Context.

    None if it names no parent. The identifiers are the same: OpenTelemetry's propagator for X-Ray converts them in the same way.
    """
    if header is None:
        return None
    fields = dict(part.strip().partition("=")[::2] for part in header.split(";"))
    root = _XRAY_ROOT.fullmatch(fields.get("Root", ""))
    parent = _XRAY_PARENT.fullmatch(fields.get("Parent", ""))
    if root is None or parent is None:
        return None
    return f"00-{root[1]}{root[2]}-{parent[0]}-{'01' if fields.get('Sampled') == '1' else '00'}".lower()


def _instant(milliseconds: str | None) -> datetime | None:
    if milliseconds is None or _MILLISECONDS.fullmatch(milliseconds) is None:
        return None
    try:
        return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)
    except (OverflowError, ValueError):
        return None
