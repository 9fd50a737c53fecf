"""The request that a handler receives (contract, section 5).

Header names are sent in lower case, once each. If several sources set the same header, the later one wins: first the task's, then
its target's, then the handler's (callers must not replace an operator's credential), then Sluice's own. Reserved names from tasks
and handlers are refused when saved; any that exist all the same are left out here.

What all plain calls of a queue to a handler have in common is rendered and checked once (`_letterhead`). A task adds a few lines of
Sluice's own, which need no check, and whatever it carries. One with a target, or a content type of its own, gets a letterhead that
is not kept: callers could fill the cache with them.

A handler's own headers are write-only. So they go nowhere but to the scheme, host and port of its own URL: a task's target could
otherwise name a server that shows them to its caller.

A request for a group has the headers of the handler and of the call as a whole. What belongs to a task is in the document: its
`headers` are those that a request for it alone would carry (`_carried`), except its type and its correlation id, which have
fields of their own.

A type, cursor, schedule or correlation id in printable ASCII is sent as it is, and any other is sent percent-encoded as UTF-8, so
that no stored text can break the head of the request.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

import msgspec
from msgspec import UNSET, UnsetType

from app.delivery.kinds import Call, GroupedCall
from app.delivery.webhook.errors import DeliveryError
from app.delivery.webhook.signing import sign
from app.delivery.webhook.urls import ParsedUrl, UrlError, check_url, parse_url
from app.domain.errors import Refusal
from app.domain.grouped import GROUP_TYPE
from app.domain.headers import folded, is_token, reserved_header
from app.domain.options import NO_OPTIONS, Options
from app.domain.payloads import JSON
from app.domain.schedules.zones import local_time
from app.domain.targets import WITHOUT_BODY, TaskTarget, address_of

_AS_IT_STANDS = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_FRAMING = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "accept-encoding", "keep-alive", "te", "trailer"}
    | {"upgrade", "expect", "proxy-connection"}
)


class _Letterhead(NamedTuple):
    url: ParsedUrl
    lines: str
    """The request line, and the headers that every call has."""
    agent: str
    """The line of Sluice's own user-agent, which a task may replace; empty if the handler has one."""
    taken: frozenset[str]
    """Headers of the handler, which a task cannot replace, in their folded form."""


def render(call: Call, now: datetime) -> tuple[ParsedUrl, bytes, bytes]:
    """Return where the call goes, the head of its request, and its body. Raises DeliveryError if it cannot be sent."""
    options, body, has_body = call.options, call.payload, True
    if options.target is not None:
        if _has_no_body(call, options.target):
            body, has_body = b"", False
        url, lines, carried, taken = _targeted(call, options.target, has_body)
    elif options.content_type is not None:
        url, lines, carried, taken = _written(
            "POST", _parsed(call.url), call.queue, options.content_type, call.handler_headers
        )
    else:
        url, lines, carried, taken = _letterhead(call.url, call.queue, JSON, call.handler_headers)
    if options is not NO_OPTIONS or call.batch is not None or call.traceparent is not None:
        headers = _carried(call, taken)
        carried = header_lines(headers.items()) if "user-agent" in headers else carried + header_lines(headers.items())
    framing = f"content-length: {len(body)}\r\n\r\n" if has_body else "\r\n"
    at = now.timestamp()
    seconds = int(at)
    head = (
        f"{lines}webhook-id: {call.task_id}\r\n"
        f"webhook-timestamp: {seconds}\r\n"
        f"webhook-signature: {sign(call.secrets, call.task_id, seconds, body)}\r\n"
        f"idempotency-key: {call.task_id}\r\n"
        f"sluice-attempt: {call.attempt}\r\n"
        f"sluice-max-attempts: {call.max_attempts}\r\n"
        f"sluice-deadline: {_instant(at + call.timeout_seconds)}\r\n"
        f"sluice-lease-token: {call.lease_token}\r\n"
        f"sluice-task-url: {call.task_url}\r\n"
        f"{carried}{framing}"
    )
    return url, head.encode("latin-1"), body


class _Item(msgspec.Struct):
    """A task in the document of a group."""

    id: str
    attempt: int
    max_attempts: int
    lease_token: str
    type: str | None
    headers: dict[str, str]
    correlation_id: str | None
    payload: msgspec.Raw | UnsetType = UNSET
    payload_base64: bytes | UnsetType = UNSET
    content_type: str | UnsetType = UNSET


class _Document(msgspec.Struct):
    tasks: list[_Item]


def render_group(group: GroupedCall, now: datetime) -> tuple[ParsedUrl, bytes, bytes]:
    """Return where the call goes, and the head and the body of its request. Raises DeliveryError as render()."""
    one = group.calls[0]
    url, lines, agent, taken = _letterhead(one.url, one.queue, GROUP_TYPE, one.handler_headers)
    body = msgspec.json.encode(_Document([_item(call, taken) for call in group.calls]))
    at = now.timestamp()
    seconds = int(at)
    head = (
        f"{lines}webhook-id: {group.group_id}\r\n"
        f"webhook-timestamp: {seconds}\r\n"
        f"webhook-signature: {sign(one.secrets, group.group_id, seconds, body)}\r\n"
        f"sluice-deadline: {_instant(at + one.timeout_seconds)}\r\n"
        f"{agent}content-length: {len(body)}\r\n\r\n"
    )
    return url, head.encode("latin-1"), body


def _item(call: Call, taken: frozenset[str]) -> _Item:
    headers = _carried(call, taken)
    headers.pop("sluice-type", None)
    headers.pop("x-correlation-id", None)
    binary = call.options.binary
    return _Item(
        call.task_id,
        call.attempt,
        call.max_attempts,
        call.lease_token,
        call.options.type,
        headers,
        call.options.correlation_id,
        UNSET if binary else msgspec.Raw(call.payload),
        call.payload if binary else UNSET,
        call.options.content_type or UNSET,
    )


def request_line(url: ParsedUrl, method: str = "POST") -> str:
    """Return the request line and the headers that frame every request, but for the content-length."""
    return f"{method} {url.target} HTTP/1.1\r\nhost: {url.authority}\r\naccept-encoding: identity\r\n"


def header_lines(headers: Iterable[tuple[str, str]]) -> str:
    """Return these headers as lines. Raises DeliveryError for a name or a value that would change the framing."""
    lines: list[bytes] = []
    for name, value in headers:
        if not _may_be_sent(name):
            raise DeliveryError("unreachable", f"the header {name!r} cannot be sent")
        if _CONTROL.search(value):
            raise DeliveryError("unreachable", "a header contains control characters")
        try:
            lines.append(f"{name}: {value}\r\n".encode("latin-1"))
        except UnicodeEncodeError:
            raise DeliveryError("unreachable", "a header contains characters that cannot be sent") from None
    return b"".join(lines).decode("latin-1")


def headers_of(head: bytes) -> dict[str, str]:
    """Return the headers of a rendered head, for people: except those that frame the message."""
    lines = head.decode("latin-1").split("\r\n")[1:-2]
    headers = dict(line.split(": ", 1) for line in lines)
    return {name: value for name, value in headers.items() if name not in _FRAMING}


@lru_cache(maxsize=1024)
def _letterhead(
    address: str, queue: str, content_type: str, handler_headers: tuple[tuple[str, str], ...]
) -> _Letterhead:
    """Return the letterhead of plain tasks, alone or in a group: posted to their handler's URL."""
    return _written("POST", _parsed(address), queue, content_type, handler_headers)


def _targeted(call: Call, target: TaskTarget, has_body: bool) -> _Letterhead:
    """Judge a task's target by its handler as it is now, and return its letterhead. Raises DeliveryError."""
    try:
        address = address_of(target, call.url, call.targets, "/target")
        url = parse_url(address)
    except Refusal as refusal:
        raise DeliveryError("failed", f"nothing was sent: {refusal.detail}") from None
    except UrlError as error:
        raise DeliveryError("unreachable", f"the URL {error}") from None
    home = _parsed(call.url)
    at_home = (url.scheme, url.host, url.port) == (home.scheme, home.host, home.port)
    content_type = (call.options.content_type or JSON) if has_body else None
    return _written(target.method, url, call.queue, content_type, call.handler_headers if at_home else ())


def _has_no_body(call: Call, target: TaskTarget) -> bool:
    return target.method in WITHOUT_BODY and call.payload == b"null" and not call.options.binary


def _written(
    method: str,
    url: ParsedUrl,
    queue: str,
    content_type: str | None,
    handler_headers: tuple[tuple[str, str], ...],
) -> _Letterhead:
    headers = {name.lower(): value for name, value in handler_headers if not reserved_header(name)}
    if content_type is not None:
        headers["content-type"] = content_type
    headers["sluice-queue"] = queue
    agent = "" if "user-agent" in headers else "user-agent: Sluice\r\n"
    taken = frozenset(folded(name) for name, _ in handler_headers)
    return _Letterhead(url, request_line(url, method) + header_lines(headers.items()), agent, taken)


def _parsed(address: str) -> ParsedUrl:
    try:
        return check_url(address)
    except UrlError as error:
        raise DeliveryError("unreachable", f"the URL {error}") from None


def _carried(call: Call, taken: frozenset[str]) -> dict[str, str]:
    """Return the headers for what the task carries."""
    options = call.options
    headers = {
        name.lower(): value
        for name, value in _own_headers(options).items()
        if not reserved_header(name) and folded(name) not in taken
    }
    headers |= _of_schedule(options)
    for name, text in (
        ("sluice-type", options.type),
        ("sluice-cursor", options.cursor),
        ("sluice-schedule", options.schedule),
        ("sluice-batch", call.batch),
        ("traceparent", call.traceparent),
        ("tracestate", call.tracestate),
        ("x-correlation-id", options.correlation_id),
    ):
        if text:
            headers[name] = _header_text(text)
    return headers


def _own_headers(options: Options) -> dict[str, str]:
    """Return the headers of the task, and of its target instead of those of the same name."""
    if options.target is None or isinstance(options.target.headers, UnsetType):
        return options.headers
    instead = {folded(name) for name in options.target.headers}
    return {
        **{name: value for name, value in options.headers.items() if folded(name) not in instead},
        **options.target.headers,
    }


def _of_schedule(options: Options) -> dict[str, str]:
    if options.scheduled_for is None:
        return {}
    headers = {"sluice-scheduled-for": _instant(options.scheduled_for.timestamp())}
    if options.schedule_timezone is not None:
        headers["sluice-schedule-timezone"] = options.schedule_timezone
        if (local := local_time(options.scheduled_for, options.schedule_timezone)) is not None:
            headers["sluice-scheduled-for-local"] = local.isoformat(timespec="milliseconds")
    return headers


def _header_text(text: str) -> str:
    return text if _AS_IT_STANDS.fullmatch(text) else quote(text, safe="!#$&'()*+,/:;=?@[]", errors="replace")


def _instant(unix_seconds: float) -> str:
    microseconds = round(unix_seconds * 1e6)
    return f"{_second(microseconds // 1_000_000)}.{microseconds // 1000 % 1000:03}Z"


@lru_cache(maxsize=256)
def _second(unix_seconds: int) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=4096)
def _may_be_sent(name: str) -> bool:
    return is_token(name) and name.lower() not in _FRAMING
