"""`POST /queues/{name}/tasks/bulk`: a large body, read as a stream, with a result per task.

A plain ASGI callable like the enqueue, because its body is validated task by task; openapi.py has its operation.
"""

from collections.abc import Sequence

import msgspec
from fastapi import Request, Response
from msgspec import UNSET
from starlette.types import Receive, Scope, Send

from app.api.models.bulk import BulkOut, RefusedOut, StoredOut
from app.domain.bulk import MAX_BULK_BYTES, TOGETHER, parse_item, parse_together, split_bulk
from app.domain.errors import Refusal, invalid_field
from app.domain.names import NAME_RULE, is_name
from app.domain.tasks import Enqueue
from app.domain.turns import Turns
from app.edge.auth import caller_of
from app.edge.body import read_body, require_json, require_size
from app.edge.config import EdgeConfig
from app.edge.errors import STATUS, problem, problem_of
from app.edge.headers import read_headers, text, trace_of
from app.edge.idempotency import require_no_key
from app.edge.replies import json_reply
from app.edge.strict import NO_PARAMETERS, Handle, StrictRoute, check_query
from app.runtime.core import Core
from app.runtime.pieces import in_pieces
from app.service import bulk
from app.service.bulk import Result, Stored

PATH = "/queues/{name}/tasks/bulk"
PLACES = 16
"""How many large requests are processed at once: each may hold its 32 MiB more than once."""
TENANT_PLACES = 4
TENANT_WAITING = 8
PATIENCE_SECONDS = 10.0


def places() -> Turns:
    """Return the turns of requests whose large body has arrived, shared by all such routes. A slow upload takes no place."""
    return Turns("large requests", places=PLACES, share=TENANT_PLACES, max_waiting=TENANT_WAITING)


class LargeRoute(StrictRoute):
    """A route that takes a large body as bytes, and processes it when it is the caller's turn."""

    validates = False

    def serving(self, handle: Handle) -> Handle:
        async def in_turn(request: Request) -> Response:
            turns: Turns = request.app.state.large
            async with turns.turn(request.state.caller.tenant_id, patience_seconds=PATIENCE_SECONDS):
                return await handle(request)

        return in_turn


class BulkEndpoint:
    def __init__(self, core: Core, edge: EdgeConfig, turns: Turns) -> None:
        self._core = core
        self._edge = edge
        self._turns = turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            reply = json_reply(await self._enqueue(scope, receive))
        except Refusal as refusal:
            reply = problem(refusal)
        await reply(scope, receive, send)

    async def _enqueue(self, scope: Scope, receive: Receive) -> bytes:
        headers = read_headers(scope["headers"])
        caller = await caller_of(self._edge, scope, text(headers.get(b"authorization")))
        caller.require("use")
        check_query(scope["query_string"], NO_PARAMETERS)
        queue = scope["path_params"]["name"]
        if not is_name(queue):
            raise invalid_field("/name", f"is not a name ({NAME_RULE})")
        require_size(text(headers.get(b"content-length")), MAX_BULK_BYTES)
        require_json(text(headers.get(b"content-type")))
        require_no_key(headers)
        body = await read_body(scope, receive, MAX_BULK_BYTES)
        async with self._turns.turn(caller.tenant_id, patience_seconds=PATIENCE_SECONDS):
            spans, atomic = split_bulk(body)
            items = await validate_items(spans, self._edge.max_payload_bytes)
            results = await bulk.enqueue(self._core, caller, queue, items, atomic, trace_of(headers))
        return msgspec.json.encode(BulkOut(await all_shown(results)))


async def validate_items(spans: Sequence[msgspec.Raw], max_payload_bytes: int) -> list[Enqueue | Refusal]:
    """Return what each task enqueues, or its refusal."""
    items: list[Enqueue | Refusal] = []
    async for start in in_pieces(range(0, len(spans), TOGETHER)):
        some = spans[start : start + TOGETHER]
        items += parse_together(some, max_payload_bytes) or await _parse_each(some, start, max_payload_bytes)
    return items


async def _parse_each(spans: Sequence[msgspec.Raw], start: int, max_payload_bytes: int) -> list[Enqueue | Refusal]:
    items: list[Enqueue | Refusal] = []
    async for index, span in in_pieces(enumerate(spans, start)):
        try:
            items.append(parse_item(span, index, max_payload_bytes))
        except Refusal as refusal:
            items.append(refusal.bare())
    return items


async def all_shown(results: Sequence[Result]) -> list[StoredOut | msgspec.Raw]:
    """Problems as JSON already, because 10,000 of them take long to encode."""
    refused = [(n, result) for n, result in enumerate(results) if isinstance(result, Refusal)]
    problems = {n: _refused(refusal) async for n, refusal in in_pieces(refused)}
    return [problems[n] if isinstance(result, Refusal) else _stored(result) for n, result in enumerate(results)]


def _stored(result: Stored) -> StoredOut:
    return StoredOut(201 if result.created else 200, result.task_id, True if result.unique_held else UNSET)


def _refused(refusal: Refusal) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(RefusedOut(STATUS[refusal.code], problem_of(refusal))))
