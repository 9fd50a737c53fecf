"""Sluice as a program uses it: tasks, batches and schedules beside the whole API."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import httpx2

from sluice_client.api.client import Api
from sluice_client.models import QueueBody
from sluice_client.serving.asgi import AsgiApp
from sluice_client.serving.django import django_view
from sluice_client.serving.push import MAX_BODY_BYTES, Push
from sluice_client.serving.transports import awaited
from sluice_client.serving.worker import Worker
from sluice_client.serving.wsgi import WsgiApp
from sluice_client.tasks.batches import Batch
from sluice_client.tasks.calls import Call
from sluice_client.tasks.dispatching import Progress, dispatch, dispatch_many
from sluice_client.tasks.functions import FunctionDefinition
from sluice_client.tasks.job import OPEN
from sluice_client.tasks.options import Options
from sluice_client.tasks.refs import TaskRef
from sluice_client.tasks.registry import JOBS, Registry
from sluice_client.tasks.schedules import Declarations, ScheduleOptions
from sluice_client.tasks.scopes import local_names
from sluice_client.tasks.task import Decorator, FunctionTask

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from sluice_client.serving.django import DjangoView

R = TypeVar("R")


class Sluice(Api):
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
        http: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, key, timeout=timeout, http=http)
        self.registry = Registry(JOBS)
        """Its tasks by name, and the jobs of the program."""
        self.declared = Declarations()
        """The queues and schedules that `sluice apply --app` creates."""
        OPEN.add(self)

    async def aclose(self) -> None:
        await super().aclose()
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
            return FunctionTask(definition, lambda: self, fn)

        return Decorator(make)

    async def dispatch(self, call: Call[R]) -> TaskRef[R]:
        """Enqueue a call of any task, here. Raises ApiError and ConnectionFailed."""
        return await dispatch(self, call)

    async def dispatch_many(self, calls: Iterable[Call[R]], *, progress: Progress | None = None) -> list[TaskRef[R]]:
        """Enqueue many calls in few requests, and return their tasks in order.

        `progress(done, total)` is called after each request; total is None for calls without a length. A request whose
        response is lost is repeated, and enqueues nothing twice. Raises DispatchIncomplete if a call was refused or could not
        be sent; its `remaining` can be dispatched again.
        """
        return await dispatch_many(self, calls, progress)

    def batch(self, batch_id: str | None = None, *, on_complete: Call[Any] | None = None) -> Batch:
        """Return a batch to fill: `async with sluice.batch(on_complete=close.call()) as batch: await batch.add(…)`.

        With the id of a batch that is still open, that one.
        """
        return Batch(self, batch_id, on_complete)

    def queue(self, name: str, **definition: "Unpack[QueueBody]") -> None:
        """Declare a queue, for `sluice apply --app`; the fields are those of `sluice.queues.put`. Raises DefinitionError."""
        self.declared.queue(name, definition)

    def schedule(self, name: str, call: Call[Any], **when: "Unpack[ScheduleOptions]") -> None:
        """Declare a schedule of this call, for `sluice apply --app`. Raises DefinitionError."""
        self.declared.schedule(name, call, when)

    def asgi(self, *, secrets: Iterable[str], max_body_bytes: int = MAX_BODY_BYTES) -> AsgiApp:
        """Return an application to mount: `app.mount("/tasks", sluice.asgi(secrets=[secret]))`.

        It runs the tasks that Sluice delivers to it. `secrets` are those of its handler: the new and the old one while it is
        being rotated. Larger bodies than `max_body_bytes` are refused. Raises ValueError for secrets that are none.
        """
        return AsgiApp(Push(self.registry, awaited(self.transport), secrets, max_body_bytes))

    def wsgi(self, *, secrets: Iterable[str], max_body_bytes: int = MAX_BODY_BYTES) -> WsgiApp:
        """Return the same as a WSGI application, for Flask."""
        return WsgiApp(Push(self.registry, awaited(self.transport), secrets, max_body_bytes))

    def django_view(self, *, secrets: Iterable[str], max_body_bytes: int = MAX_BODY_BYTES) -> "DjangoView":
        """Return the same as a view: `path("tasks/", sluice.django_view(secrets=[secret]))`."""
        return django_view(Push(self.registry, awaited(self.transport), secrets, max_body_bytes))

    def worker(
        self,
        queues: Sequence[str],
        *,
        concurrency: int = 8,
        memory_limit: str | int | None = None,
        lease_seconds: float = 60.0,
        drain_seconds: float = 25.0,
    ) -> Worker:
        """Return a worker that takes tasks from these queues: `await sluice.worker(queues=["reports"]).run()`.

        It runs up to `concurrency` tasks at once. Above `memory_limit` (bytes, or text such as "512MB") it finishes what it
        holds and ends with exit code 75. `lease_seconds`: how soon others get its tasks if its process dies. `drain_seconds`:
        how long tasks may go on after SIGTERM before they are given back. Raises ValueError.
        """
        return Worker(
            awaited(self.transport),
            self.registry,
            queues,
            concurrency=concurrency,
            memory_limit=memory_limit,
            lease_seconds=lease_seconds,
            drain_seconds=drain_seconds,
        )
