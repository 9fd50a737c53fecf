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
SECONDS = {"delay_seconds": (0, 31_622_400), "ttl_seconds": (0, 316_224_000), "timeout_seconds": (0.1, 43_200)}
"""The least and the most of each. A `ttl_seconds` of 0 is refused as well."""
TEXTS = {"type": 255, "idempotency_key": 255, "unique_key": 255, "correlation_id": 255, "key": 128}
"""How long each may be: `key` in bytes, the others in characters. None may be empty."""
MAX_TAGS, MAX_TAG = 10, 100


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
        run_at = _instant(body, "run_at", "delay_seconds", now) or now
        if run_at > after(now, SECONDS["delay_seconds"][1]):
            raise invalid("/run_at", "is more than 366 days in the future")
        expires_at = _instant(body, "expires_at", "ttl_seconds", now)
        sent = {name: value for name, value in body.items() if name != "idempotency_key"}
        return cls(json.dumps(body["payload"]), carried, max(now, run_at), expires_at, json.dumps(sent, sort_keys=True))

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
    _check_values({name: value for name, value in body.items() if value is not None})


def _check_values(body: Mapping[str, Json]) -> None:
    for name in SECONDS.keys() & body.keys():
        least, most = SECONDS[name]
        if type(body[name]) not in (int, float) or not least <= body[name] <= most:
            raise invalid(f"/{name}", f"expected a number from {least} to {most}")
    if body.get("ttl_seconds") == 0:
        raise invalid("/ttl_seconds", "expected a number above 0")
    for name in TEXTS.keys() & body.keys():
        text = body[name]
        if not isinstance(text, str) or not 1 <= len(text.encode() if name == "key" else text) <= TEXTS[name]:
            raise invalid(f"/{name}", f"expected a text that is not empty and no longer than {TEXTS[name]}")
    priority = body.get("priority", 0)
    if type(priority) is not int or not -100 <= priority <= 100:
        raise invalid("/priority", "expected an integer from -100 to 100")
    tags = body.get("tags", [])
    if not isinstance(tags, list) or len(tags) > MAX_TAGS or len(set(tags)) < len(tags):
        raise invalid("/tags", f"expected at most {MAX_TAGS} tags, each once")
    for place, tag in enumerate(tags):
        if not 1 <= len(tag) <= MAX_TAG:
            raise invalid(f"/tags/{place}", f"expected a text that is not empty and no longer than {MAX_TAG}")
    if body.get("on_duplicate", "keep") not in ("keep", "postpone", "replace"):
        raise invalid("/on_duplicate", "expected one of keep, postpone, replace")
    if "on_duplicate" in body and "unique_key" not in body:
        raise invalid("/on_duplicate", "is about tasks with the same unique_key; send one")


def _instant(body: Mapping[str, Json], name: str, seconds: str, now: datetime) -> datetime | None:
    """Return an instant that is given as such, or as seconds from now."""
    if body.get(seconds) is not None:
        return after(now, body[seconds])
    if body.get(name) is None:
        return None
    try:
        return read_instant(body[name])
    except (AttributeError, ValueError):
        raise invalid(f"/{name}", "expected an RFC 3339 instant with an offset") from None
