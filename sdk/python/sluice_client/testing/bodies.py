"""What an enqueue may contain, read as the service reads it."""

import json
from collections.abc import Mapping, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sluice_client.testing.records import Json, after, read_instant

CARRIED = frozenset(
    {
        "type",
        "priority",
        "idempotency_key",
        "unique_key",
        "on_duplicate",
        "retry",
        "timeout_seconds",
        "correlation_id",
        "headers",
        "tags",
        "handler",
        "key",
        "limits",
    }
)
TIMES = frozenset({"delay_seconds", "run_at", "ttl_seconds", "expires_at"})
BEYOND = frozenset({"payload_base64", "content_type", "target", "callbacks", "debounce_max_seconds"})
"""Fields that the service knows, and the fake does not."""


class Refused(Exception):
    """A refusal, as the service answers it in a problem document."""

    def __init__(self, status: int, code: str, detail: str, errors: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.errors = status, code, detail, errors

    def below(self, place: str) -> "Refused":
        """Return it with pointers that begin at this place of the whole body."""
        return Refused(
            self.status, self.code, self.detail, tuple((place + pointer, why) for pointer, why in self.errors)
        )

    def problem(self) -> dict[str, Json]:
        return {
            "type": "about:blank",
            "title": self.code.replace("_", " "),
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "errors": [{"pointer": pointer, "detail": detail} for pointer, detail in self.errors],
        }


def beyond(what: str) -> NotImplementedError:
    return NotImplementedError(
        f"the fake of sluice_client.testing does not know {what}: test it with the fixture `sluice_server`, a real service"
    )


def not_supported(body: Mapping[str, Json], known: Set[str], what: str) -> None:
    """Raise NotImplementedError if the body has a field that is not among these, and is not null."""
    for name, value in body.items():
        if name not in known and value is not None:
            raise beyond(f"the field {name!r} of {what}")


def invalid(pointer: str, detail: str) -> Refused:
    return Refused(422, "invalid", "the body is not valid", ((pointer, detail),))


@dataclass(frozen=True)
class TaskFields:
    """An enqueue that has been read."""

    payload: str
    carried: Mapping[str, Any]
    run_at: datetime
    expires_at: datetime | None
    fingerprint: str

    @property
    def idempotency_key(self) -> str | None:
        key: str | None = self.carried.get("idempotency_key")
        return key

    @property
    def unique_key(self) -> str | None:
        key: str | None = self.carried.get("unique_key")
        return key

    @classmethod
    def read(cls, body: Mapping[str, Json], key: str | None, now: datetime) -> "TaskFields":
        """Read an enqueue. Raises Refused (invalid), and NotImplementedError for what only the service knows."""
        _check(body)
        carried = {name: value for name, value in body.items() if name in CARRIED and value is not None}
        if key is not None:
            if carried.get("idempotency_key", key) != key:
                raise Refused(400, "malformed", "the header and the field `idempotency_key` differ")
            carried["idempotency_key"] = key
        run_at = now
        if body.get("delay_seconds") is not None:
            run_at = after(now, body["delay_seconds"])
        elif body.get("run_at") is not None:
            run_at = max(now, read_instant(body["run_at"]))
        expires_at = None
        if body.get("ttl_seconds") is not None:
            expires_at = after(now, body["ttl_seconds"])
        elif body.get("expires_at") is not None:
            expires_at = read_instant(body["expires_at"])
        sent = {name: value for name, value in body.items() if name != "idempotency_key"}
        return cls(json.dumps(body["payload"]), carried, run_at, expires_at, json.dumps(sent, sort_keys=True))

    @classmethod
    def read_followup(cls, body: Mapping[str, Json], now: datetime, place: str) -> None:
        """Check a task that a task's answer names. Raises Refused, with pointers from this place on."""
        for name in ("queue", "idempotency_key"):
            if not body.get(name):
                raise invalid(f"{place}/{name}", "is required")
        try:
            cls.read({name: value for name, value in body.items() if name != "queue"}, None, now)
        except Refused as refused:
            raise refused.below(place) from None


def _check(body: Mapping[str, Json]) -> None:
    if "payload_base64" not in body and "payload" not in body:
        raise invalid("/payload", "is required")
    for name, value in body.items():
        if name in BEYOND and value is not None:
            raise beyond(f"the field {name!r} of a task")
        if name not in CARRIED | TIMES | BEYOND | {"payload"}:
            raise invalid(f"/{name}", "is no field of a task")
    for one, other in (("delay_seconds", "run_at"), ("ttl_seconds", "expires_at")):
        if body.get(one) is not None and body.get(other) is not None:
            raise invalid(f"/{other}", f"cannot be combined with {one}")
    for name in ("delay_seconds", "ttl_seconds"):
        if body.get(name) is not None and body[name] < 0:
            raise invalid(f"/{name}", "is negative")
    priority = body.get("priority")
    if priority is not None and (not isinstance(priority, int) or not -100 <= priority <= 100):
        raise invalid("/priority", "is an integer from -100 to 100")
