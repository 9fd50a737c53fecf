"""What was enqueued because tasks have ended, as call_back_v1 says it."""

from collections.abc import Callable

import msgspec


class LeftOut(msgspec.Struct, frozen=True):
    """A callback that was not enqueued."""

    tenant: str
    task: str
    """The task that ended."""
    queue: str
    callback_queue: str
    state: str
    reason: str
    """chain: it would have been the ninth callback to follow from another; queue_gone: its queue has been deleted."""


class Called(msgspec.Struct, frozen=True):
    queues: dict[int, int] = {}
    """Queue id -> how many callbacks were enqueued."""
    left_out: tuple[LeftOut, ...] = ()


Told = Callable[[Called], None]
"""Called by a statement that ended tasks, once it is committed, with what was enqueued because of that."""
_CALLED = msgspec.json.Decoder(Called)


def untold(_: Called) -> None:
    """For callers that nobody has to be told by."""


def decoded(document: str) -> Called:
    return _CALLED.decode(document)
