"""The routes of the fake: requests as JSON in, answers as JSON out, as over a socket."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from sluice_client.testing.bodies import Refused, beyond, not_supported
from sluice_client.testing.records import Json
from sluice_client.testing.service import MemorySluice, Stored
from sluice_client.testing.views import attempt_view, batch_view, task_view, why_view


@dataclass(frozen=True)
class Call:
    """A request whose path has been matched: `name` is what its path names."""

    sluice: MemorySluice
    name: str
    body: Mapping[str, Json]
    headers: Mapping[str, str]
    params: Mapping[str, str]

    @property
    def trace(self) -> Mapping[str, str | None]:
        return {name: self.headers.get(name) for name in ("traceparent", "tracestate")}


@dataclass(frozen=True)
class Answer:
    status: int
    body: Json
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        return json.dumps(self.body, allow_nan=False).encode()

    @property
    def content_type(self) -> str:
        return "application/json" if self.status < 400 else "application/problem+json"


class NobodyRuns(AssertionError):
    """A test waits for a task that nobody runs."""


def answer(sluice: MemorySluice, method: str, target: str, headers: Mapping[str, str], content: bytes) -> Answer:
    """Answer a request. Raises NotImplementedError for a route that only the service has."""
    path, _, query = target.partition("?")
    for verb, pattern, route in _ROUTES:
        found = re.fullmatch(pattern, path)
        if found is None or verb != method:
            continue
        params = dict(part.partition("=")[::2] for part in query.split("&") if part)
        try:
            name = unquote(found[1]) if found.groups() else ""
            return route(Call(sluice, name, _decoded(content), headers, params))
        except Refused as refused:
            return Answer(refused.status, refused.problem())
    raise beyond(f"{method} {path}")


def _decoded(content: bytes) -> Mapping[str, Json]:
    if not content:
        return {}
    try:
        body = json.loads(content, parse_constant=_no_number)
    except ValueError as error:
        raise Refused(400, "malformed", f"the body is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise Refused(422, "invalid", "the body is no object")
    return body


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def _ready(call: Call) -> Answer:
    return Answer(200, {"status": "ok"})


def _put_queue(call: Call) -> Answer:
    known = {
        "retry",
        "idempotency_seconds",
        "timeout_seconds",
        "description",
        "retention",
        "max_concurrency",
        "handler",
    }
    not_supported(call.body, known, "a queue")
    status = 200 if call.name in call.sluice.queues else 201
    queue = call.sluice.queue(call.name)
    queue.definition = dict(call.body)
    return Answer(status, {"name": call.name, **queue.definition})


def _enqueue(call: Call) -> Answer:
    key = call.headers.get("idempotency-key")
    stored = call.sluice.enqueue(call.name, call.body, None if key is None else key.strip('"'), trace=call.trace)
    if stored.status == 201:
        headers = {"location": f"/tasks/{stored.task.id}"}
    else:
        headers = {"idempotent-replayed" if stored.replayed else "unique-held": "true"}
    return Answer(stored.status, task_view(stored.task, call.sluice.clock.now()), headers)


def _enqueue_many(call: Call) -> Answer:
    if call.body.get("atomic"):
        raise beyond("`atomic` of a bulk request")
    return Answer(200, {"results": _results(call.sluice.enqueue_each(call.name, call.body["tasks"], trace=call.trace))})


def _results(results: "list[Stored | Refused]") -> list[Json]:
    return [_result(one) for one in results]


def _result(one: "Stored | Refused") -> Json:
    if isinstance(one, Refused):
        return {"status": one.status, "problem": one.problem()}
    held = {"unique_held": True} if one.status == 200 and not one.replayed else {}
    return {"status": one.status, "id": one.task.id, **held}


def _get_task(call: Call) -> Answer:
    task = call.sluice.find(call.name)
    if task.unfinished and float(call.params.get("wait_seconds", 0)) > 0:
        raise NobodyRuns(
            f"task {task.id} is {task.state_at(call.sluice.clock.now())}, and nobody runs it while the test waits for it:"
            " `await sluice_test.drain()` first, after moving `sluice_test.clock` if it is not due yet"
        )
    return Answer(200, task_view(task, call.sluice.clock.now()))


def _cancel(call: Call) -> Answer:
    return Answer(200, task_view(call.sluice.cancel(call.name), call.sluice.clock.now()))


def _retry(call: Call) -> Answer:
    return Answer(200, task_view(call.sluice.retry(call.name), call.sluice.clock.now()))


def _why(call: Call) -> Answer:
    return Answer(200, why_view(call.sluice.find(call.name), call.sluice.clock.now()))


def _attempts(call: Call) -> Answer:
    found = call.sluice.find(call.name).attempts
    return Answer(200, {"items": [attempt_view(one) for one in reversed(found)], "next_cursor": None})


def _create_batch(call: Call) -> Answer:
    batch, results = call.sluice.create_batch(call.body)
    return Answer(201, {**batch_view(batch, call.sluice.clock.now()), "results": _results(results)})


def _get_batch(call: Call) -> Answer:
    return Answer(200, batch_view(call.sluice.find_batch(call.name), call.sluice.clock.now()))


def _add_to_batch(call: Call) -> Answer:
    results = call.sluice.add_to_batch(call.name, call.body["tasks"])
    batch = call.sluice.find_batch(call.name)
    return Answer(200, {**batch_view(batch, call.sluice.clock.now()), "results": _results(results)})


def _seal_batch(call: Call) -> Answer:
    return Answer(200, batch_view(call.sluice.seal_batch(call.name), call.sluice.clock.now()))


def _cancel_batch(call: Call) -> Answer:
    return Answer(200, batch_view(call.sluice.cancel_batch(call.name), call.sluice.clock.now()))


_ROUTES: list[tuple[str, str, Callable[[Call], Answer]]] = [
    ("GET", "/health/(?:live|ready)", _ready),
    ("PUT", "/queues/([^/]+)", _put_queue),
    ("POST", "/queues/([^/]+)/tasks", _enqueue),
    ("POST", "/queues/([^/]+)/tasks/bulk", _enqueue_many),
    ("GET", "/tasks/([^/]+)", _get_task),
    ("POST", "/tasks/([^/]+)/cancel", _cancel),
    ("POST", "/tasks/([^/]+)/retry", _retry),
    ("GET", "/tasks/([^/]+)/why", _why),
    ("GET", "/tasks/([^/]+)/attempts", _attempts),
    ("POST", "/batches", _create_batch),
    ("GET", "/batches/([^/]+)", _get_batch),
    ("POST", "/batches/([^/]+)/tasks", _add_to_batch),
    ("POST", "/batches/([^/]+)/seal", _seal_batch),
    ("POST", "/batches/([^/]+)/cancel", _cancel_batch),
]
