"""What a row of the audit says of a change: the fields that changed, without secrets and content."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import UNSET, Struct, structs

from app.domain.handlers import HIDDEN

CONTENT = frozenset({"error", "headers", "payload", "payload_base64", "progress", "result", "secret"})
"""Fields whose values are not recorded, wherever they are nested. Content may be encrypted, or hidden from who reads the audit."""
MAX_NAME = 300
BY_SYSTEM = {
    ("disable", "handler"): "It answered 410.",
    ("set_breaker", "handler"): "Its breaker opened, or closed again.",
    ("pause", "schedule"): "As many runs in a row failed as `pause_after_failures` says.",
    ("create", "key"): "A replica started with a new bootstrap key.",
    ("revoke", "key"): "A new bootstrap key replaced it.",
    ("rewrap", "data_key"): "A replica got an encryption key, and the data key was not encrypted yet.",
}
"""What Sluice does by itself: (verb, noun), and when."""
BY_COMMAND = {
    ("create", "key"): "`sluice keys create`",
    ("rotate", "key"): "`sluice keys rotate`",
    ("revoke", "key"): "`sluice keys revoke`",
    ("rewrap", "data_key"): "`sluice keys rewrap`",
    ("grant", "role"): "`sluice grant`",
    ("revoke", "role"): "`sluice revoke`",
}
"""What commands do on the database itself."""

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Concealed:
    """A value that is compared and not recorded, under a name that shows what others have."""

    value: Any = field(repr=False)


def changed(before: Fields | None, after: Fields | None) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return what differs, before and after. None: there was nothing, or nothing is left; the other has all that is set."""
    if before is None or after is None:
        return _set(before), _set(after)
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return _shown(names, before), _shown(names, after)


def _set(fields: Fields | None) -> dict[str, Any] | None:
    return None if fields is None else _shown([name for name in fields if fields[name] is not None], fields)


def _shown(names: list[str], fields: Fields) -> dict[str, Any]:
    return {name: _hidden(name, fields.get(name)) for name in names}


def _hidden(name: str, value: Any) -> Any:
    if name in CONTENT:
        return None if value is None else HIDDEN
    if isinstance(value, Concealed):
        return HIDDEN
    if isinstance(value, Struct):
        value = structs.asdict(value)
    if isinstance(value, Mapping):
        return {key: _hidden(key, item) for key, item in value.items() if item is not UNSET}
    if isinstance(value, list | tuple):
        return [_hidden("", item) for item in value]
    return value


def recorded_name(name: str | None) -> str | None:
    """Return a name as it is recorded: also one that a refused call has made up, which may be long."""
    return None if name is None else name[:MAX_NAME]
