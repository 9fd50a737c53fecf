"""Many calls as few requests, and what became of each of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any
from uuid import uuid4

from sluice_client.messages import encode
from sluice_client.tasks.calls import Call
from sluice_client.tasks.failures import DispatchIncomplete, Refused
from sluice_client.tasks.propagation import present_correlation_id

PAGE_TASKS = 2_000
PAGE_BYTES = 4 * 1024 * 1024
"""The service takes 10,000 tasks and 32 MiB. Smaller requests show progress, and repeat less when a response is lost."""


class Page:
    """Calls of one queue that are sent together."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.calls: list[tuple[int, Call[Any]]] = []
        """With their places among all calls."""
        self._bodies: list[bytes] = []
        self._bytes = 0

    def has_room(self, body: bytes) -> bool:
        return not self.calls or (len(self.calls) < PAGE_TASKS and self._bytes + len(body) <= PAGE_BYTES)

    def add(self, index: int, call: Call[Any], body: bytes) -> None:
        self.calls.append((index, call))
        self._bodies.append(body)
        self._bytes += len(body) + 1

    def content(self) -> bytes:
        return b'{"tasks":[' + b",".join(self._bodies) + b"]}"


def pages(calls: Iterable[Call[Any]]) -> Iterator[Page]:
    """Sort calls into pages by queue. Every call gets an idempotency key, so that its page can be repeated."""
    filling: dict[str, Page] = {}
    for index, call in enumerate(map(keyed, calls)):
        body = encode(body_of(call))
        page = filling.get(call.queue)
        if page is not None and not page.has_room(body):
            yield page
            page = None
        if page is None:
            page = filling[call.queue] = Page(call.queue)
        page.add(index, call, body)
    yield from filling.values()


class Results:
    """What became of the calls, page by page."""

    def __init__(self) -> None:
        self.refs: dict[int, Any] = {}
        self.refused: list[Refused] = []

    def take(self, page: Page, results: Sequence[Mapping[str, Any]], ref: Any) -> None:
        """`ref(call, id, created)` makes what stands for a task."""
        for (index, call), result in zip(page.calls, results, strict=True):
            if "id" in result:
                self.refs[index] = ref(call, result["id"], result["status"] == 201)
            else:
                problem = result["problem"]
                errors = problem.get("errors", ())
                self.refused.append(Refused(index, call, result["status"], problem["code"], problem["detail"], errors))

    def done(self) -> int:
        return len(self.refs) + len(self.refused)

    def finished(self, unsent: Sequence[Page] = (), why: str = "") -> list[Any]:
        """Return the tasks in the order of the calls. Raises DispatchIncomplete if one is missing."""
        left = [one for page in unsent for one in page.calls]
        refs = [self.refs.get(index) for index in range(self.done() + len(left))]
        if self.refused or left:
            refused = sorted(self.refused, key=lambda one: one.index)
            raise DispatchIncomplete(refs, refused, [call for _, call in sorted(left, key=itemgetter(0))], why)
        return refs


def keyed(call: Call[Any]) -> Call[Any]:
    """Return the call with an idempotency key, so that it can be sent again."""
    return call if call.idempotency_key is not None else call.with_key(str(uuid4()))


def body_of(call: Call[Any]) -> dict[str, Any]:
    """Return the JSON of an enqueue, with the correlation id of what runs here unless the call has one."""
    body = call.body()
    here = present_correlation_id()
    return {**body, "correlation_id": here} if here is not None and "correlation_id" not in body else body
