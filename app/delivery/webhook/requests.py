"""Headers of the request that a handler receives (contract, section 5).

Header names are sent in lower case, once each. If several sources set the same header, the later one wins: first the task's, then
the handler's (callers must not replace an operator's credential), then Sluice's own. Reserved names from tasks and handlers are
refused when saved; any that exist all the same are left out here.

A type, cursor, schedule or correlation id in printable ASCII is sent as it is, and any other is sent percent-encoded as UTF-8, so
that no stored text can break the head of the request.
"""

import re
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from app.delivery.kinds import Call
from app.delivery.webhook.signing import sign
from app.domain.headers import folded, reserved_header
from app.domain.schedules.zones import local_time

_AS_IT_STANDS = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


def build_headers(call: Call, now: datetime) -> dict[str, str]:
    """Return all headers except those that frame the message, which the transport adds."""
    options = call.options
    headers = {"user-agent": "Sluice"}
    operators = {folded(name) for name in call.handler_headers}
    for name, value in options.headers.items():
        if not reserved_header(name) and folded(name) not in operators:
            headers[name.lower()] = value
    for name, value in call.handler_headers.items():
        if not reserved_header(name):
            headers[name.lower()] = value
    timestamp = int(now.timestamp())
    headers["content-type"] = call.content_type
    headers["webhook-id"] = call.task_id
    headers["webhook-timestamp"] = str(timestamp)
    headers["webhook-signature"] = sign(call.secrets, call.task_id, timestamp, call.payload)
    headers["idempotency-key"] = call.task_id
    headers["sluice-queue"] = call.queue
    headers["sluice-attempt"] = str(call.attempt)
    headers["sluice-max-attempts"] = str(call.max_attempts)
    headers["sluice-deadline"] = _instant(now + timedelta(seconds=call.timeout_seconds))
    headers["sluice-lease-token"] = call.lease_token
    headers["sluice-task-url"] = call.task_url
    if options.scheduled_for is not None:
        headers["sluice-scheduled-for"] = _instant(options.scheduled_for)
        if options.schedule_timezone is not None:
            headers["sluice-schedule-timezone"] = options.schedule_timezone
            if (local := local_time(options.scheduled_for, options.schedule_timezone)) is not None:
                headers["sluice-scheduled-for-local"] = local.isoformat(timespec="milliseconds")
    if options.type:
        headers["sluice-type"] = _header_text(options.type)
    if options.cursor:
        headers["sluice-cursor"] = _header_text(options.cursor)
    if options.schedule:
        headers["sluice-schedule"] = _header_text(options.schedule)
    if call.batch:
        headers["sluice-batch"] = _header_text(call.batch)
    if call.traceparent:
        headers["traceparent"] = _header_text(call.traceparent)
    if call.tracestate:
        headers["tracestate"] = _header_text(call.tracestate)
    if options.correlation_id:
        headers["x-correlation-id"] = _header_text(options.correlation_id)
    return headers


def _header_text(text: str) -> str:
    return text if _AS_IT_STANDS.fullmatch(text) else quote(text, safe="!#$&'()*+,/:;=?@[]", errors="replace")


def _instant(at: datetime) -> str:
    at = at if at.tzinfo is UTC else at.astimezone(UTC)
    return at.isoformat(timespec="milliseconds")[:-6] + "Z"
