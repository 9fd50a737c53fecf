"""The client of Sluice, durable queues and schedules over HTTP. What this module exports is public, the rest is not.

A name is imported when it is first used, so that a program pays for what it uses: a new one needs a line in `__all__`, in
`ROOMS` and below TYPE_CHECKING.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sluice_client.api import UNSET, Api, Event, Pages, Reply, SyncApi, reply
    from sluice_client.context import Context
    from sluice_client.errors import (
        ApiError,
        Conflict,
        ConnectionFailed,
        Forbidden,
        Invalid,
        LeaseLost,
        NotFound,
        NotSluice,
        QueueFull,
        SluiceError,
        Unauthenticated,
        Unavailable,
    )
    from sluice_client.outcomes import Fatal, Retry, Skip
    from sluice_client.serving.worker import MemoryLimitReached
    from sluice_client.sync_transport import SyncTransport
    from sluice_client.transport import Transport

__all__ = [
    "UNSET",
    "Api",
    "ApiError",
    "Conflict",
    "ConnectionFailed",
    "Context",
    "Event",
    "Fatal",
    "Forbidden",
    "Invalid",
    "LeaseLost",
    "MemoryLimitReached",
    "NotFound",
    "NotSluice",
    "Pages",
    "QueueFull",
    "Reply",
    "Retry",
    "Skip",
    "SluiceError",
    "SyncApi",
    "SyncTransport",
    "Transport",
    "Unauthenticated",
    "Unavailable",
    "reply",
]

ROOMS = {
    "api": ["UNSET", "Api", "Event", "Pages", "Reply", "SyncApi", "reply"],
    "context": ["Context"],
    "errors": [
        "ApiError",
        "Conflict",
        "ConnectionFailed",
        "Forbidden",
        "Invalid",
        "LeaseLost",
        "NotFound",
        "NotSluice",
        "QueueFull",
        "SluiceError",
        "Unauthenticated",
        "Unavailable",
    ],
    "outcomes": ["Fatal", "Retry", "Skip"],
    "serving.worker": ["MemoryLimitReached"],
    "sync_transport": ["SyncTransport"],
    "transport": ["Transport"],
}
"""Where each name is defined."""
_ROOM_OF = {name: room for room, names in ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
