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
    from sluice_client.serving.verify import NotSigned, Verifier
    from sluice_client.serving.worker import MemoryLimitReached
    from sluice_client.sluice import Sluice
    from sluice_client.sync_sluice import SyncSluice
    from sluice_client.sync_transport import SyncTransport
    from sluice_client.tasks.backoff import exponential, fixed
    from sluice_client.tasks.batches import Batch
    from sluice_client.tasks.blocking.batches import SyncBatch
    from sluice_client.tasks.blocking.job import SyncJob
    from sluice_client.tasks.blocking.refs import SyncTaskRef
    from sluice_client.tasks.blocking.task import SyncTask
    from sluice_client.tasks.calls import Call
    from sluice_client.tasks.failures import DispatchIncomplete, TaskFailed
    from sluice_client.tasks.faults import DefinitionError, PayloadInvalid
    from sluice_client.tasks.job import Job
    from sluice_client.tasks.jobs import job
    from sluice_client.tasks.propagation import correlation_id
    from sluice_client.tasks.refs import TaskRef
    from sluice_client.tasks.task import Task
    from sluice_client.transport import Transport

__all__ = [
    "UNSET",
    "Api",
    "ApiError",
    "Batch",
    "Call",
    "Conflict",
    "ConnectionFailed",
    "Context",
    "DefinitionError",
    "DispatchIncomplete",
    "Event",
    "Fatal",
    "Forbidden",
    "Invalid",
    "Job",
    "LeaseLost",
    "MemoryLimitReached",
    "NotFound",
    "NotSigned",
    "NotSluice",
    "Pages",
    "PayloadInvalid",
    "QueueFull",
    "Reply",
    "Retry",
    "Skip",
    "Sluice",
    "SluiceError",
    "SyncApi",
    "SyncBatch",
    "SyncJob",
    "SyncSluice",
    "SyncTask",
    "SyncTaskRef",
    "SyncTransport",
    "Task",
    "TaskFailed",
    "TaskRef",
    "Transport",
    "Unauthenticated",
    "Unavailable",
    "Verifier",
    "correlation_id",
    "exponential",
    "fixed",
    "job",
    "reply",
]

ROOMS = {
    "sluice": ["Sluice"],
    "sync_sluice": ["SyncSluice"],
    "tasks.backoff": ["exponential", "fixed"],
    "tasks.batches": ["Batch"],
    "tasks.blocking.batches": ["SyncBatch"],
    "tasks.blocking.job": ["SyncJob"],
    "tasks.blocking.refs": ["SyncTaskRef"],
    "tasks.blocking.task": ["SyncTask"],
    "tasks.calls": ["Call"],
    "tasks.failures": ["DispatchIncomplete", "TaskFailed"],
    "tasks.faults": ["DefinitionError", "PayloadInvalid"],
    "tasks.job": ["Job"],
    "tasks.jobs": ["job"],
    "tasks.propagation": ["correlation_id"],
    "tasks.refs": ["TaskRef"],
    "tasks.task": ["Task"],
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
    "serving.verify": ["NotSigned", "Verifier"],
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
