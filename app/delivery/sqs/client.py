"""The operations of SQS that bridges need, over the transport of deliveries: AWS JSON 1.0, signed.

One call is one request: whoever calls decides whether there is another. The egress policy applies to queues as to handlers' URLs.
A queue is asked at `endpoint_url` or, without one, at the server that its URL names.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import UnsetType

from app.delivery.kinds import outcome_of
from app.delivery.sqs.credentials import CredentialsError, credentials_of, require_chain
from app.delivery.webhook.connection import Reply
from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.errors import DeliveryError
from app.delivery.webhook.requests import header_lines, request_line
from app.delivery.webhook.transport import Request, Transport
from app.delivery.webhook.urls import ParsedUrl, UrlError, check_url
from app.delivery.webhook.webhooks import check_literal
from app.domain.answers import Answer, NoAnswer
from app.domain.bridges import AwsCredentials
from app.domain.handlers import HIDDEN
from app.domain.sigv4 import sign

T = TypeVar("T")
_SESSION_TOKEN = re.compile(r"(?<=x-amz-security-token:)\S+")

CALL_SECONDS = 10.0
MAX_REPLY_BYTES = 67_108_864
"""Ten messages of 1 MiB, in JSON at its longest."""
MAX_MESSAGE = 500
"""Characters of the server's own words in an error."""

THROTTLED = frozenset(
    {
        "KmsThrottled",
        "OverLimit",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
PERMANENT = frozenset(
    {
        "AWS.SimpleQueueService.NonExistentQueue",
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "KmsAccessDenied",
        "KmsDisabled",
        "KmsInvalidKeyUsage",
        "KmsInvalidState",
        "KmsNotFound",
        "KmsOptInRequired",
        "MissingAuthenticationToken",
        "NotAuthorized",
        "OptInRequired",
        "QueueDoesNotExist",
        "QueueDeletedRecently",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
"""Only a person can mend these."""


class SqsFailure(Exception):
    """A call that did not succeed, in words for people and without secrets."""

    def __init__(self, message: str, *, code: str = "", status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        """Such as QueueDoesNotExist; empty if the server did not answer as SQS does."""
        self.status = status
        """Of the answer; None without one."""

    @property
    def throttled(self) -> bool:
        return self.status == 429 or self.code in THROTTLED

    @property
    def permanent(self) -> bool:
        return self.code in PERMANENT or (self.status in (401, 403) and not self.throttled)


class SqsClient:
    """One queue, with the credentials for it. `tenant` pays for the lookups of its host."""

    def __init__(
        self,
        transport: Transport,
        queue_url: str,
        region: str,
        endpoint_url: str | None = None,
        credentials: AwsCredentials | None = None,
        *,
        tenant: str = "",
    ) -> None:
        self._transport = transport
        self._queue_url = queue_url
        self._region = region
        self.endpoint = endpoint_of(queue_url, endpoint_url)
        self.credentials = credentials_of(credentials)
        self._tenant = tenant

    async def call(
        self,
        operation: str,
        given: Mapping[str, Any],
        *,
        timeout_seconds: float = CALL_SECONDS,
        max_reply_bytes: int = MAX_REPLY_BYTES,
    ) -> bytes:
        """Do an operation on the queue, such as ReceiveMessage; return the JSON that it answers. Raises SqsFailure.

        Cancelling it closes the connection.
        """
        try:
            credentials = await self.credentials.get()
            request = self.request(
                operation, given, credentials, datetime.now(UTC), timeout_seconds, max_reply_bytes=max_reply_bytes
            )
            reply: Reply | Exception = await outcome_of(partial(self._transport.send, request))
        except CredentialsError as error:
            raise SqsFailure(str(error)) from None
        except DeliveryError as error:
            raise SqsFailure(error.detail) from None
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, NoAnswer):
            raise SqsFailure(f"{operation} failed: {reply.error}")
        if reply.status != 200:
            raise failure_of(operation, reply)
        if reply.truncated:
            raise SqsFailure(f"the answer to {operation} has more than {max_reply_bytes} bytes", status=reply.status)
        return reply.body

    def request(
        self,
        operation: str,
        given: Mapping[str, Any],
        credentials: AwsCredentials,
        now: datetime,
        timeout_seconds: float,
        *,
        max_reply_bytes: int = MAX_REPLY_BYTES,
    ) -> Request:
        """Return the request of an operation, signed. Raises DeliveryError if it cannot be sent."""
        try:
            url = check_url(self.endpoint)
        except UrlError as error:
            raise DeliveryError("unreachable", f"the URL {error}") from None
        body = msgspec.json.encode({"QueueUrl": self._queue_url, **given})
        head = self._head(url, operation, body, credentials, now)
        return Request(url, head, body, self._tenant, timeout_seconds, max_reply_bytes)

    def _head(self, url: ParsedUrl, operation: str, body: bytes, credentials: AwsCredentials, now: datetime) -> bytes:
        signed = sign(
            "POST",
            f"{url.scheme}://{url.authority}{url.target}",
            {"content-type": "application/x-amz-json-1.0", "x-amz-target": f"AmazonSQS.{operation}"},
            body,
            access_key_id=credentials.access_key_id,
            secret_access_key=credentials.secret_access_key,
            session_token=credentials.session_token,
            region=self._region,
            service="sqs",
            now=now.astimezone(UTC),
        )
        del signed["host"]  # it is in the lines of every request
        lines = header_lines([*signed.items(), ("user-agent", "Sluice")])
        return f"{request_line(url)}{lines}content-length: {len(body)}\r\n\r\n".encode("latin-1")


def read_answer(body: bytes, kind: type[T]) -> T:
    """Return the JSON of an answer. Raises ValueError if it is not what SQS answers."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError("not an answer of SQS") from error


def endpoint_of(queue_url: str, endpoint_url: str | None) -> str:
    """Return the URL that requests about a queue go to."""
    if endpoint_url is not None:
        return endpoint_url
    parts = urlsplit(queue_url)
    return f"{parts.scheme}://{parts.netloc}/"


def check_sqs(
    egress: EgressPolicy, queue_url: str, endpoint_url: str | None, credentials: AwsCredentials | UnsetType | None
) -> None:
    """Check the address of a queue before it is saved. Raises Refusal: invalid, egress_denied, bridge_unavailable."""
    where = "/queue_url" if endpoint_url is None else "/endpoint_url"
    check_literal(egress, endpoint_of(queue_url, endpoint_url), where)
    if not credentials:
        require_chain()


def failure_of(operation: str, answer: Answer) -> SqsFailure:
    """Read an answer that is not a success."""
    code, words = _error_in(answer)
    said = f": {words}" if words else ""
    if not code:
        return SqsFailure(f"the server answered {operation} with {answer.status}{said}", status=answer.status)
    return SqsFailure(f"{operation} was refused with {code}{said}", code=code, status=answer.status)


def _error_in(answer: Answer) -> tuple[str, str]:
    """Return the code and the words of an error; empty where the server did not answer as SQS does."""
    try:
        document = read_answer(answer.body, Any)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        return "", ""
    code, words = document.get("__type"), document.get("message", document.get("Message"))
    name = code.rpartition("#")[2].partition(":")[0] if isinstance(code, str) else ""
    # where a signature does not match, AWS repeats the headers that were signed
    said = _SESSION_TOKEN.sub(HIDDEN, words)[:MAX_MESSAGE] if isinstance(words, str) else ""
    return name[:100].replace("\x00", ""), said.replace("\x00", "")  # which no error that is stored may have
