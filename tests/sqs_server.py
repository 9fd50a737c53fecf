"""moto's SQS server on a real socket, in which requests can be made to fail and credentials to end.

It is started by the fixture `sqs_server`. Queues are made and filled in its backend, not over HTTP, which is many times as fast.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from uuid import uuid4
from wsgiref.types import StartResponse, WSGIEnvironment

from moto import settings as moto_settings
from moto.core.authorization import ActionAuthenticatorMixin
from moto.iam.models import IAMBackend, iam_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.sqs import models as sqs_models
from moto.sqs.models import Message, Queue, SQSBackend, sqs_backends
from werkzeug.serving import WSGIRequestHandler, make_server

ACCOUNT = "123456789012"
REGION = "eu-central-1"
JSON_TYPE = "application/x-amz-json-1.0"
CORAL = {
    "AccessDenied": "AccessDeniedException",
    "SignatureDoesNotMatch": "InvalidSignatureException",
    "InvalidClientTokenId": "UnrecognizedClientException",
}
"""The names that errors of credentials have in the JSON protocol."""


class Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        pass


@dataclass(frozen=True)
class Fault:
    """An answer in the place of the server's."""

    status: int
    body: bytes

    @classmethod
    def error(cls, status: int, code: str, message: str = "made to fail") -> "Fault":
        """An error as AWS JSON 1.0 has it."""
        return cls(status, json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": message}).encode())

    @classmethod
    def document(cls, answer: Mapping[str, Any]) -> "Fault":
        """A success with this answer."""
        return cls(200, json.dumps(answer).encode())


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    operation: str
    given: dict[str, Any]
    access_key_id: str


@dataclass
class SqsQueue:
    """A queue of the server, as its owner sees it."""

    url: str
    arn: str
    _backend: SQSBackend
    _queue: Queue

    def send(
        self,
        body: str = "{}",
        attributes: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        trace: str | None = None,
        group: str | None = None,
        deduplication: str | None = None,
    ) -> str:
        """Send a message; its id. `trace` is its AWSTraceHeader."""
        system = {"AWSTraceHeader": {"DataType": "String", "StringValue": trace}} if trace else None
        message = Message(str(uuid4()), body, system)
        message.message_attributes = dict(attributes or {})
        message.group_id = group
        message.deduplication_id = deduplication or (group and uuid4().hex)
        message.mark_sent()
        self._queue.add_message(message)
        return str(message.id)

    def left(self) -> list[str]:
        """The ids of all messages that nobody has deleted."""
        return [str(message.id) for message in tuple(self._queue._messages)]

    def bodies(self) -> list[str]:
        """The bodies of the same."""
        return [str(message.body) for message in tuple(self._queue._messages)]

    def hidden(self) -> int:
        """How many of them are being received."""
        return sum(not message.visible for message in tuple(self._queue._messages))

    def show_again(self) -> None:
        """End the visibility timeout of every message at once, so that it is received again."""
        for message in tuple(self._queue._messages):
            message.change_visibility(0)

    def delete(self) -> None:
        self._backend.delete_queue(self._queue.name)


_sending = threading.local()


def _uncounted(send: Callable[..., Message]) -> Callable[..., Message]:
    """A send in whose course queues say that they are empty."""

    def send_uncounted(*given: Any, **named: Any) -> Message:
        _sending.now = True
        try:
            return send(*given, **named)
        finally:
            _sending.now = False

    return send_uncounted


def _zero_in_a_send(count: Callable[[Queue], int]) -> property:
    return property(lambda queue: 0 if getattr(_sending, "now", False) else count(queue))


for _name in ("", "_delayed", "_not_visible"):
    _count = f"approximate_number_of_messages{_name}"
    setattr(Queue, _count, _zero_in_a_send(getattr(Queue, _count).fget))


@dataclass
class SqsServer:
    url: str = ""
    region: str = REGION
    asked: list[Asked] = field(default_factory=list)
    """All requests, in the order of arrival."""
    before: Callable[[Asked], Fault | None] = lambda asked: None
    """Called with each request before it is carried out, in a thread of its own; a Fault is answered in its place."""
    after: Callable[[Asked], Fault | None] = lambda asked: None
    """The same, once it has been carried out: so that what was done is not known to be done."""

    most_wait_seconds: int = 1
    """Long polls end after it, whatever they ask for: a replica that stops waits for the one under way."""
    messages_received: int = 0
    """How many messages all receives have brought."""

    def __post_init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._backend: SQSBackend = sqs_backends[ACCOUNT][REGION]
        # It counts the queue for each message that is received.
        self._backend.is_message_valid_based_on_retention_period = lambda queue_name, message: True  # type: ignore[method-assign]
        # It asks for the time twice for each message in the queue, by way of datetime.
        vars(sqs_models)["unix_time_millis"] = lambda: time.time() * 1000
        # It counts the queue several times for each message that is sent, to say how many there are.
        self._backend.send_message = _uncounted(self._backend.send_message)  # type: ignore[method-assign]
        self._iam: IAMBackend = iam_backends[ACCOUNT]["aws"]

    def queue(self, *, fifo: bool = False, **attributes: str) -> SqsQueue:
        """A new queue with these attributes of SQS."""
        name = f"q-{uuid4().hex}" + (".fifo" if fifo else "")
        given: dict[str, Any] = {"FifoQueue": "true", **attributes} if fifo else dict(attributes)
        made = self._backend.create_queue(name, **given)
        return SqsQueue(f"{self.url}/{ACCOUNT}/{name}", str(made.queue_arn), self._backend, made)

    def times(self, operation: str) -> int:
        """How often it was asked for."""
        return sum(asked.operation == operation for asked in tuple(self.asked))

    def address(self, queue: SqsQueue) -> dict[str, Any]:
        """What a source or a handler of kind sqs says to reach the queue."""
        return {
            "kind": "sqs",
            "queue_url": queue.url,
            "region": REGION,
            "endpoint_url": self.url,
            "credentials": {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "not-checked"},
        }

    def user(self, *actions: str) -> dict[str, str]:
        """Credentials of a new user who may do this, such as `sqs:ReceiveMessage`. They count while `guarded`."""
        name = f"u-{uuid4().hex}"
        self._iam.create_user("us-east-1", name)
        statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self._iam.put_user_policy(name, "p", policy)
        key = self._iam.create_access_key(name)
        return {"access_key_id": str(key.access_key_id), "secret_access_key": str(key.secret_access_key)}

    def end_credentials(self, access_key_id: str) -> None:
        """From now on they are those of nobody."""
        for user in tuple(self._iam.users.values()):
            if any(key.access_key_id == access_key_id for key in user.access_keys):
                self._iam.delete_access_key(access_key_id, user.name)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Signatures and rights of users are checked meanwhile."""
        before = moto_settings.INITIAL_NO_AUTH_ACTION_COUNT, ActionAuthenticatorMixin.request_count
        moto_settings.INITIAL_NO_AUTH_ACTION_COUNT, ActionAuthenticatorMixin.request_count = 0, 0
        try:
            yield
        finally:
            moto_settings.INITIAL_NO_AUTH_ACTION_COUNT, ActionAuthenticatorMixin.request_count = before

    def as_ever(self) -> None:
        """Forget what the test before asked for."""
        self.before = self.after = lambda asked: None
        self.asked.clear()
        self.messages_received = 0

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        asked = _asked(environ, self.most_wait_seconds)
        self.asked.append(asked)
        if (fault := self.before(asked)) is not None:
            return _answer(fault, start)
        held: list[Any] = []

        def started(*given: Any) -> Any:
            held.append(given)

        body = list(self._app(environ, started))
        if asked.operation == "ReceiveMessage":
            self.messages_received += b"".join(body).count(b'"ReceiptHandle"')
        if (fault := self.after(asked) or _refusal(b"".join(body))) is not None:
            return _answer(fault, start)
        start(*held[0])
        return body


def _refusal(body: bytes) -> Fault | None:
    """What AWS answers where moto refuses credentials, which it does in XML, whatever the protocol."""
    found = re.search(rb"<ErrorResponse>.*<Code>(\w+)</Code><Message>(.*?)</Message>", body, re.DOTALL)
    if found is None:
        return None
    code, message = found[1].decode(), found[2].decode()
    return Fault(403, json.dumps({"__type": f"com.amazon.coral.service#{CORAL[code]}", "message": message}).encode())


@contextmanager
def serving_sqs() -> Iterator[SqsServer]:
    server = SqsServer()
    listening = make_server("127.0.0.1", 0, server, threaded=True, request_handler=Quiet)
    server.url = f"http://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    yield server
    listening.shutdown()
    thread.join()
    listening.server_close()


def failed_entries(entries: Sequence[Mapping[str, Any]], code: str, *, sender_fault: bool) -> Fault:
    """The answer of a batch in which the entries have failed."""
    failed = [{"Id": entry["Id"], "SenderFault": sender_fault, "Code": code, "Message": code} for entry in entries]
    return Fault.document({"Successful": [], "Failed": failed})


def _asked(environ: WSGIEnvironment, most_wait_seconds: int) -> Asked:
    """Read the request, and put its body back for the server, with a shorter wait."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    operation = environ.get("HTTP_X_AMZ_TARGET", "").removeprefix("AmazonSQS.")
    _, _, scope = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")
    given = json.loads(body) if operation else {}
    if moto_settings.INITIAL_NO_AUTH_ACTION_COUNT and given.get("WaitTimeSeconds", 0) > most_wait_seconds:
        body = json.dumps(
            {**given, "WaitTimeSeconds": most_wait_seconds}
        ).encode()  # not where its signature is checked
        environ["CONTENT_LENGTH"] = str(len(body))
    environ["wsgi.input"] = BytesIO(body)
    return Asked(operation, given, scope.partition("/")[0])


def _answer(fault: Fault, start: StartResponse) -> list[bytes]:
    start(f"{fault.status} Answer", [("content-type", JSON_TYPE), ("content-length", str(len(fault.body)))])
    return [fault.body]
