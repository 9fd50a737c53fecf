"""`POST /queues/{name}/tasks/bulk`: a body of its own size, read as a stream, with a verdict for each task.

A bare ASGI callable like the enqueue, for its body is judged task by task; openapi.py has its operation.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from app.api.auth import caller_of
from app.api.config import EdgeConfig
from app.api.enqueue import trace_of
from app.api.errors import STATUS, problem, problem_dict
from app.api.headers import read_headers, text
from app.api.models.wire import json_reply
from app.api.strict import NO_PARAMETERS, check_query, read_body, require_json
from app.domain.bulk import MAX_BULK_BYTES, parse_item, split_bulk
from app.domain.errors import Refusal, invalid_field
from app.domain.names import NAME_RULE, is_name
from app.domain.tasks import Enqueue
from app.service import bulk
from app.service.bulk import Result, Stored
from app.service.context import Core

PATH = "/queues/{name}/tasks/bulk"
MAX_AT_ONCE = 16
"""Requests in hand: each may hold its 32 MiB more than once."""
PAUSE_TASKS = 200
PAUSE_BYTES = 262_144
"""After so much parsing other requests get their turn."""


class InHand:
    """Bounds how many requests of this size are read and worked on at once, over all routes that take them."""

    def __init__(self) -> None:
        self._count = 0

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Raises Refusal (unavailable)."""
        if self._count >= MAX_AT_ONCE:
            raise Refusal("unavailable", "too many bulk requests at once", retry_after_seconds=1)
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1


class BulkEndpoint:
    def __init__(self, core: Core, edge: EdgeConfig, in_hand: InHand) -> None:
        self._core = core
        self._edge = edge
        self._in_hand = in_hand

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            reply = json_reply(await self._enqueue(scope, receive))
        except Refusal as refusal:
            reply = problem(refusal)
        await reply(scope, receive, send)

    async def _enqueue(self, scope: Scope, receive: Receive) -> bytes:
        headers = read_headers(scope["headers"])
        caller = await caller_of(self._edge, text(headers.get(b"authorization")))
        caller.require("use")
        check_query(scope["query_string"], NO_PARAMETERS)
        queue = scope["path_params"]["name"]
        if not is_name(queue):
            raise invalid_field("/name", f"is not a name ({NAME_RULE})")
        require_json(text(headers.get(b"content-type")))
        with self._in_hand.one_more():
            body = await read_body(receive, text(headers.get(b"content-length")), MAX_BULK_BYTES)
            spans, atomic = split_bulk(body)
            items = await judge_items(spans, self._edge.max_payload_bytes)
            results = await bulk.enqueue(self._core, caller, queue, items, atomic, trace_of(headers))
        return msgspec.json.encode({"results": [shown(result) for result in results]})


async def judge_items(spans: Sequence[msgspec.Raw], max_payload_bytes: int) -> list[Enqueue | Refusal]:
    """What each of the tasks asks for, or why it is refused."""
    items: list[Enqueue | Refusal] = []
    parsed = 0
    for index, span in enumerate(spans):
        try:
            items.append(parse_item(span, index, max_payload_bytes))
        except Refusal as refusal:
            items.append(refusal)
        parsed += len(memoryview(span))
        if parsed > PAUSE_BYTES or index % PAUSE_TASKS == PAUSE_TASKS - 1:
            parsed = 0
            await asyncio.sleep(0)
    return items


def shown(result: Result) -> dict[str, Any]:
    if isinstance(result, Stored):
        status = 201 if result.created else 200
        return {"status": status, "id": result.task_id} | ({"unique_held": True} if result.unique_held else {})
    return {"status": STATUS[result.code], "problem": problem_dict(result)}
