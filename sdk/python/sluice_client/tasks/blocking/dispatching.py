"""Enqueueing calls, one or many."""

from collections.abc import Callable, Iterable, Sized
from typing import Any, TypeVar

from sluice_client.api.blocking.client import SyncApi
from sluice_client.api.parameters import segment
from sluice_client.errors import SluiceError
from sluice_client.messages import encode
from sluice_client.tasks.blocking.refs import SyncTaskRef
from sluice_client.tasks.calls import Call
from sluice_client.tasks.paging import Page, Results, body_of, keyed, pages
from sluice_client.tasks.propagation import trace_headers

R = TypeVar("R")
Progress = Callable[[int, int | None], object]
"""Called after each request with how many calls are done, and how many there are if that is known."""


def dispatch(api: SyncApi, call: Call[R]) -> SyncTaskRef[R]:
    """Enqueue a call. Without an idempotency key it gets one, so that a lost response enqueues nothing twice.

    Raises ApiError and ConnectionFailed.
    """
    response = api.transport.request(
        "POST",
        f"/queues/{segment(call.queue)}/tasks",
        content=encode(body_of(keyed(call))),
        headers=trace_headers(),
        repeatable=True,
    )
    return SyncTaskRef(api, call.definition, response.json()["id"], created=response.status_code == 201)


def dispatch_many(api: SyncApi, calls: Iterable[Call[R]], progress: Progress | None) -> list[SyncTaskRef[R]]:
    """Enqueue many calls. Raises DispatchIncomplete if one was refused or could not be sent."""
    return send(api, calls, progress, lambda page: f"/queues/{segment(page.queue)}/tasks/bulk")


def send(
    api: SyncApi, calls: Iterable[Call[R]], progress: Progress | None, path: Callable[[Page], str]
) -> list[SyncTaskRef[R]]:
    """Send calls page by page to where `path` says. A page whose response is lost is repeated; if that does not help, the
    rest is not sent. What `calls` itself raises passes through. Raises DispatchIncomplete."""
    results, total = Results(), len(calls) if isinstance(calls, Sized) else None

    def ref(call: Call[Any], task_id: str, created: bool) -> SyncTaskRef[Any]:
        return SyncTaskRef(api, call.definition, task_id, created=created)

    left = pages(calls)
    for page in left:
        try:
            response = api.transport.request(
                "POST", path(page), content=page.content(), headers=trace_headers(), repeatable=True
            )
        except SluiceError as error:
            return results.finished([page, *left], str(error))
        results.take(page, response.json()["results"], ref)
        if progress is not None:
            progress(results.done(), total)
    return results.finished()
