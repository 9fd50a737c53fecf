"""Sluice as a program uses it: tasks, batches and schedules beside the whole API."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import httpx2

from sluice_client.api.blocking.client import SyncApi
from sluice_client.models import QueueBody
from sluice_client.tasks.blocking.batches import SyncBatch
from sluice_client.tasks.blocking.dispatching import Progress, dispatch, dispatch_many
from sluice_client.tasks.blocking.job import OPEN
from sluice_client.tasks.blocking.refs import SyncTaskRef
from sluice_client.tasks.blocking.task import Decorator, SyncFunctionTask
from sluice_client.tasks.calls import Call
from sluice_client.tasks.functions import FunctionDefinition
from sluice_client.tasks.options import Options
from sluice_client.tasks.registry import JOBS, Registry
from sluice_client.tasks.schedules import Declarations, ScheduleOptions
from sluice_client.tasks.scopes import local_names

if TYPE_CHECKING:
    from typing_extensions import Unpack

R = TypeVar("R")


class SyncSluice(SyncApi):
    """One Sluice: the tasks of a program, and every operation of the HTTP API in groups (`sluice.queues`, `sluice.tasks`, …).

    `url` and `key` are read from SLUICE_URL and SLUICE_KEY if they are not given; the URL defaults to
    http://127.0.0.1:8080. `timeout` is in seconds, for each call and all its repeats together. `http` replaces the network.
    Raises ValueError for a URL or a key that cannot be used. Nothing is sent before something is asked for.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = 30.0,
        http: httpx2.BaseTransport | None = None,
    ) -> None:
        super().__init__(url, key, timeout=timeout, http=http)
        self.registry = Registry(JOBS)
        """Its tasks by name, and the jobs of the program."""
        self.declared = Declarations()
        """The queues and schedules that `sluice apply --app` creates."""
        OPEN.add(self)

    def close(self) -> None:
        super().close()
        OPEN.discard(self)

    def task(self, *, queue: str, name: str | None = None, **options: "Unpack[Options]") -> Decorator:
        """Make a function a task. It stays the function that it is.

        `name` is the `type` of its tasks; by default, the function's own. Raises DefinitionError if the function or its
        options cannot make a task, or another task has its name.
        """

        def make(fn: Any) -> Any:
            module = getattr(fn, "__module__", "")
            definition: FunctionDefinition[Any] = FunctionDefinition(
                fn, {"queue": queue, **options}, name=name, names=local_names(module)
            )
            self.registry.add(definition)
            return SyncFunctionTask(definition, lambda: self, fn)

        return Decorator(make)

    def dispatch(self, call: Call[R]) -> SyncTaskRef[R]:
        """Enqueue a call of any task, here. Raises ApiError and ConnectionFailed."""
        return dispatch(self, call)

    def dispatch_many(self, calls: Iterable[Call[R]], *, progress: Progress | None = None) -> list[SyncTaskRef[R]]:
        """Enqueue many calls in few requests, and return their tasks in order.

        `progress(done, total)` is called after each request; total is None for calls without a length. A request whose
        response is lost is repeated, and enqueues nothing twice. Raises DispatchIncomplete if a call was refused or could not
        be sent; its `remaining` can be dispatched again.
        """
        return dispatch_many(self, calls, progress)

    def batch(self, batch_id: str | None = None, *, on_complete: Call[Any] | None = None) -> SyncBatch:
        """Return a batch to fill: `with sluice.batch(on_complete=close.call()) as batch: batch.add(…)`.

        With the id of a batch that is still open, that one.
        """
        return SyncBatch(self, batch_id, on_complete)

    def queue(self, name: str, **definition: "Unpack[QueueBody]") -> None:
        """Declare a queue, for `sluice apply --app`; the fields are those of `sluice.queues.put`. Raises DefinitionError."""
        self.declared.queue(name, definition)

    def schedule(self, name: str, call: Call[Any], **when: "Unpack[ScheduleOptions]") -> None:
        """Declare a schedule of this call, for `sluice apply --app`. Raises DefinitionError."""
        self.declared.schedule(name, call, when)
