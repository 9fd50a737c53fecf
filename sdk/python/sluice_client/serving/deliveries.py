"""Reads the three forms in which a task comes: a request of its own, an item of a group, and a leased task."""

import json
from base64 import b64decode
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import unquote

from sluice_client.context import Delivery

GROUP_TYPE = "application/vnd.sluice.group+json"
_OF_ITEMS = {"id": str, "type": str | None, "attempt": int, "max_attempts": int, "lease_token": str, "headers": dict}


class Malformed(Exception):
    """What came is not what Sluice sends. The text may be shown to the sender."""


class Pushed(NamedTuple):
    """A delivery by request."""

    delivery: Delivery
    lease_token: str


def is_group(headers: Mapping[str, str]) -> bool:
    """Whether a request carries a group of tasks."""
    return _media_type(headers) == GROUP_TYPE


def of_request(headers: Mapping[str, str], body: bytes, sent_at: int) -> Pushed:
    """Read a task's own request. `sent_at` is its timestamp, in Unix seconds. Raises Malformed."""
    payload = _loaded(body) if _is_json(headers) else body
    try:  # headers are not signed
        delivery = Delivery(
            id=headers["webhook-id"],
            queue=headers.get("sluice-queue", ""),
            type=_text(headers.get("sluice-type")),
            attempt=int(headers["sluice-attempt"]),
            max_attempts=int(headers["sluice-max-attempts"]),
            payload=payload,
            headers=headers,
            correlation_id=_text(headers.get("x-correlation-id")),
            **_of_headers(headers),
            **_deadline(headers, sent_at),
        )
    except (KeyError, ValueError, OverflowError) as error:
        raise Malformed(f"the headers are not what Sluice sends: {error!r}") from None
    return Pushed(delivery, headers.get("sluice-lease-token", ""))


def of_group(headers: Mapping[str, str], body: bytes, sent_at: int) -> list[Pushed]:
    """Read the tasks of a group. Raises Malformed."""
    shared = {"queue": headers.get("sluice-queue", ""), **_deadline(headers, sent_at)}
    try:
        items = _loaded(body)["tasks"]
        if not items:
            raise ValueError("it has no tasks")
        return [Pushed(_of_item(item, shared), item["lease_token"]) for item in items]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Malformed(f"the group is not what Sluice sends: {error!r}") from None


def _of_item(item: Mapping[str, Any], shared: Mapping[str, Any]) -> Delivery:
    for name, cls in _OF_ITEMS.items():
        if not isinstance(item[name], cls):
            raise TypeError(f"{name} is a {type(item[name]).__name__}")
    return Delivery(
        id=item["id"],
        type=item["type"],
        attempt=item["attempt"],
        max_attempts=item["max_attempts"],
        payload=_payload(item),
        headers=item["headers"],
        correlation_id=item["correlation_id"],
        **_of_headers(item["headers"]),
        **shared,
    )


def of_lease(task: Mapping[str, Any]) -> Delivery:
    """Read a task that this worker has leased."""
    return Delivery(
        id=task["id"],
        queue=task["queue"],
        type=task["type"],
        attempt=task["attempt"],
        max_attempts=task["max_attempts"],
        payload=_payload(task),
        headers={name.lower(): value for name, value in task["headers"].items()},
        deadline=_end_of(task),
        seconds=task["timeout_seconds"],
        cursor=task.get("cursor"),
        schedule=task.get("schedule"),
        scheduled_for=instant(task.get("scheduled_for")),
        batch_id=task.get("batch"),
        correlation_id=task["correlation_id"],
        progress=task.get("progress"),
    )


def _end_of(task: Mapping[str, Any]) -> datetime | None:
    """Return when the timeout of a leased task is over. The service does not enforce it for workers; the worker does."""
    started, seconds = instant(task.get("started_at")), task["timeout_seconds"]
    return None if started is None or seconds is None else started + timedelta(seconds=seconds)


def _deadline(headers: Mapping[str, str], sent_at: int) -> dict[str, Any]:
    """Return the deadline, and how far away it was when the request was sent: both by the clock of the service, because the
    clock here may differ. The timestamp has whole seconds, so this can be up to one too long."""
    at = instant(headers.get("sluice-deadline"))
    return {"deadline": at, "seconds": None if at is None else at.timestamp() - sent_at}


def _payload(task: Mapping[str, Any]) -> object:
    """Return the payload of a task in a document: JSON, or bytes."""
    return b64decode(task["payload_base64"]) if "payload_base64" in task else task["payload"]


def _loaded(body: bytes) -> Any:
    """Parse JSON. Raises Malformed."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Malformed("the body is not JSON") from None


def _media_type(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _is_json(headers: Mapping[str, str]) -> bool:
    return _media_type(headers) == "application/json" or _media_type(headers).endswith("+json")


def instant(text: str | None) -> datetime | None:
    """Parse an instant of Sluice's. Python 3.10 reads no Z."""
    return None if text is None else datetime.fromisoformat(text.replace("Z", "+00:00"))


def _of_headers(headers: Mapping[str, str]) -> dict[str, Any]:
    return {
        "cursor": _text(headers.get("sluice-cursor")),
        "schedule": _text(headers.get("sluice-schedule")),
        "scheduled_for": instant(headers.get("sluice-scheduled-for")),
        "batch_id": headers.get("sluice-batch"),
        "traceparent": headers.get("traceparent"),
        "tracestate": headers.get("tracestate"),
    }


def _text(value: str | None) -> str | None:
    """Return a text from a header. One that is not printable ASCII came percent-encoded, and only such a one is decoded."""
    if value is None or "%" not in value:
        return value
    decoded = unquote(value)
    return value if decoded.isascii() and decoded.isprintable() and decoded == decoded.strip() else decoded
