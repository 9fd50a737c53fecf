"""A batch: many tasks as one piece of work, and what follows when all of it is done."""

import logging
from collections.abc import Iterable
from types import TracebackType
from typing import Any, TypeVar

from sluice_client.api.blocking.client import SyncApi
from sluice_client.api.parameters import segment
from sluice_client.models import BatchView
from sluice_client.tasks.blocking.dispatching import Progress, send
from sluice_client.tasks.blocking.refs import SyncTaskRef
from sluice_client.tasks.calls import Call

R = TypeVar("R")
log = logging.getLogger("sluice_client.batches")


class SyncBatch:
    """`with sluice.batch() as batch: batch.add(…)`. All its tasks are on one queue, that of the first.

    It is created by the first task, and sealed when the block ends. If the block raises, it stays open: its tasks run, and
    `on_complete` does not. `sluice.batch(id)` adds the rest, and seals it.
    """

    def __init__(self, api: SyncApi, batch_id: str | None, on_complete: Call[Any] | None) -> None:
        self._api = api
        self.id = batch_id
        """None until it has a task."""
        self._on_complete = on_complete
        self._queue: str | None = None

    def __repr__(self) -> str:
        return f"<SyncBatch {self.id or 'without tasks'}>"

    def __enter__(self) -> "SyncBatch":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.seal()
        elif self.id is not None:
            log.warning("batch %s stays open, because what fills it raised %s", self.id, type(error).__name__)

    def add(self, call: Call[R]) -> SyncTaskRef[R]:
        """Add a task. Raises ApiError, ConnectionFailed, DispatchIncomplete if it was refused, and ValueError for another
        queue than that of the tasks before it."""
        return (self.add_many([call]))[0]

    def add_many(self, calls: Iterable[Call[R]], progress: Progress | None = None) -> list[SyncTaskRef[R]]:
        """Add many tasks, in few requests. Raises as `add` does.

        A call whose idempotency key was used before adds nothing: its task stays in the batch it is in.
        """
        return send(self._api, self._opened(calls), progress, lambda page: f"/batches/{segment(str(self.id))}/tasks")

    def seal(self) -> None:
        """Say that this was all. When its tasks have ended, `on_complete` is enqueued. Without tasks, that is now."""
        if self.id is None and self._on_complete is not None:
            self._create(self._on_complete.queue)
        if self.id is not None:
            self._api.transport.request("POST", f"/batches/{segment(self.id)}/seal", repeatable=True)

    def cancel(self) -> None:
        """Seal it, and cancel its tasks that have not ended. `on_complete` still runs."""
        if self.id is not None:
            self._api.batches.cancel(self.id)

    def status(self) -> BatchView:
        """Return its progress. Raises ValueError if it has no task yet."""
        if self.id is None:
            raise ValueError("the batch has no task yet")
        return self._api.batches.get(self.id)

    def _opened(self, calls: Iterable[Call[R]]) -> Iterable[Call[R]]:
        """Create the batch if this has a first call; return the calls."""
        listed = calls if isinstance(calls, (list, tuple)) else list(calls)
        for call in listed:
            self._queue = self._queue or call.queue
            if call.queue != self._queue:
                raise ValueError(f"the batch is on queue {self._queue}, and {call!r} is not: a batch has one queue")
        if self.id is None and self._queue is not None:
            self._create(self._queue)
        return listed

    def _create(self, queue: str) -> None:
        then = None if self._on_complete is None else self._on_complete.on_complete()
        self.id = (self._api.batches.create(queue=queue, on_complete=then, sealed=False))["id"]
