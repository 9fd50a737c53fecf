"""From messages of a source to tasks: read them, enqueue them with the groups of all others, and say what became of each.

A message becomes exactly one task, however often it comes, because its idempotency key outlives it at the source. What its source
says of bodies decides whether one that cannot be read is wrapped; what cannot be a live task even so, for example because it is too
large or does not match the queue's schema, becomes a dead one with its bytes. So nothing is received again and again unseen.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from app.domain.errors import Refusal
from app.domain.limits import key_problem
from app.domain.payloads import ANY_BYTES
from app.domain.sources import (
    KEY_SECONDS,
    MAX_DEAD_BYTES,
    NO_COUNTS,
    Counts,
    Payload,
    SourceDefinition,
    Unfit,
    carried_headers,
    key_at,
    read_body,
    storable,
    text_of,
    wrapped,
)
from app.domain.tasks import MAX_LABEL, Enqueue, label_problem
from app.runtime.core import Core
from app.runtime.enqueueing import Admitted
from app.runtime.entries import check, entry_of, needs_check, new_ids, task_created
from app.sources.kinds import Message
from app.store import partitions, sources
from app.store.enqueues import Entry
from app.store.failures import Unavailable
from app.store.queues import QueueRow
from app.store.sources import SourceRow
from app.telemetry.tracing import TraceContext

TEXT = "text/plain; charset=utf-8"
_UNFIT = re.compile(r"[^!-~]")


@dataclass(slots=True)
class Placed:
    """What became of the messages of one receive."""

    done: list[Message] = field(default_factory=list)
    """Committed: they may be acknowledged."""
    waiting: list[Message] = field(default_factory=list)
    """Not enqueued yet, in their order: to be tried again, or given back."""
    left: list[Message] = field(default_factory=list)
    """They cannot even be dead tasks, and stay with the source."""
    tasks: list[str] = field(default_factory=list)
    counts: Counts = NO_COUNTS
    problem: str | None = None
    """Why some wait or are left."""


@dataclass(frozen=True, slots=True)
class _Item:
    message: Message
    request: Enqueue
    entry: Entry
    fault: str | None = None
    """Why it is dead from the start."""
    invalid: bool = False


async def place(core: Core, source: SourceRow, messages: Sequence[Message]) -> Placed:
    """Enqueue messages. Those that cannot be enqueued now, because the queue is full or the database is away, are `waiting`."""
    placed = Placed()
    queue = source.view.definition.queue
    try:
        row = core.queues.get(source.tenant_id, queue) or await core.queues.load(source.tenant_id, queue)
        if row is None:
            return Placed(waiting=list(messages), problem=f"there is no queue {queue}")
        live, dead = await _read(core, source, row, messages, placed)
        if live:
            verdicts = await core.enqueueing.submit_all([item.entry for item in live])
            for item, verdict in zip(live, verdicts, strict=True):
                _note(core, row, item, verdict, placed)
        if dead:
            await _bury(core, row, dead, placed)
    except (Unavailable, Refusal) as error:
        settled = {id(message) for message in (*placed.done, *placed.left)}
        placed.waiting = [message for message in messages if id(message) not in settled]
        placed.problem = str(error)
    places = {id(message): place for place, message in enumerate(messages)}
    placed.waiting.sort(key=lambda message: places[id(message)])
    return placed


async def _read(
    core: Core, source: SourceRow, row: QueueRow, messages: Sequence[Message], placed: Placed
) -> tuple[list[_Item], list[_Item]]:
    """Return what can be a task, and what can only be a dead one."""
    definition, ids = source.view.definition, new_ids(core, len(messages))
    live: list[_Item] = []
    dead: list[_Item] = []
    held_groups: set[str] = set()
    for message, task_id in zip(messages, ids, strict=True):
        if message.group in held_groups:
            placed.waiting.append(message)
            continue
        if len(message.body) > MAX_DEAD_BYTES:
            placed.left.append(message)
            placed.counts = placed.counts.plus(Counts(invalid=1))
            placed.problem = f"a message of {len(message.body)} bytes is too large even for a dead task: {message.key}"
            continue
        fault, invalid, request = None, False, None
        try:
            request, invalid = task_of(definition, message, core.max_payload_bytes)
            if needs_check(row, request):
                await check(core, row, None, request)
        except Unfit as error:
            fault = str(error)
        except Refusal as refusal:
            if refusal.code == "unavailable":
                placed.waiting.append(message)
                placed.problem = refusal.detail
                if message.group is not None:
                    held_groups.add(message.group)  # the others must not overtake it
                continue
            fault = refusal.detail
        if fault is not None or request is None:
            request = dead_task_of(definition, message)
        context = TraceContext.parse(message.traceparent, message.tracestate)
        entry = entry_of(core, task_id, row, 0, request, context)._replace(key_seconds=KEY_SECONDS)
        (live if fault is None else dead).append(_Item(message, request, entry, fault, invalid or fault is not None))
    return live, dead


def task_of(definition: SourceDefinition, message: Message, max_bytes: int) -> tuple[Enqueue, bool]:
    """Return the task of a message, and whether its body had to be wrapped. Raises Unfit."""
    invalid = False
    try:
        payload = read_body(message.body, definition.body)
    except Unfit as error:
        if definition.on_invalid == "dead":
            raise
        payload, invalid = wrapped(message.body, str(error)), True
    if len(payload.content) > max_bytes:
        raise Unfit(f"the payload has {len(payload.content)} bytes, at most {max_bytes} are allowed")
    return _task(definition, message, payload, _key_of(definition, message, payload)), invalid


def dead_task_of(definition: SourceDefinition, message: Message) -> Enqueue:
    """Return the task that holds the bytes of a message which cannot be a live task."""
    try:
        payload = read_body(message.body, definition.body)
    except Unfit:
        payload = Payload(message.body, binary=True)
    task = _task(definition, message, payload, None)
    if payload.binary and text_of(payload.content) is not None:
        return msgspec.structs.replace(task, content_type=TEXT)
    return task


def _task(definition: SourceDefinition, message: Message, payload: Payload, key: str | None) -> Enqueue:
    correlation_id = message.correlation_id
    if correlation_id is not None and label_problem(correlation_id) is not None:
        correlation_id = None
    return Enqueue(
        payload.content,
        type=definition.type,
        priority=definition.priority,
        idempotency_key=idempotency_key(message.key),
        correlation_id=correlation_id,
        headers=carried_headers(message.headers, definition.headers),
        tags=tuple(definition.tags),
        content_type=ANY_BYTES if payload.binary else None,
        binary=payload.binary,
        key=key,
    )


def _key_of(definition: SourceDefinition, message: Message, payload: Payload) -> str | None:
    """Return whose task it is. Raises Unfit if that cannot be a key."""
    named = None if definition.key_from is None else key_at(definition.key_from, payload.value, message.headers)
    key = message.group if named is None else named
    if key is not None and (problem := key_problem(key)) is not None:
        raise Unfit(f"its key {problem}")
    return key


def idempotency_key(key: str) -> str:
    """Return a key that fits, the same for the same one."""
    if label_problem(key) is None:
        return key
    digest = hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()
    return f"{_UNFIT.sub('', key)[: MAX_LABEL - len(digest) - 1]}:{digest}"


def _note(core: Core, row: QueueRow, item: _Item, verdict: Admitted | BaseException, placed: Placed) -> None:
    if isinstance(verdict, BaseException):
        placed.waiting.append(item.message)
        placed.problem = str(verdict)
        return
    match verdict.verdict:
        case "created":
            placed.done.append(item.message)
            placed.tasks.append(verdict.task_id)
            placed.counts = placed.counts.plus(Counts(enqueued=1, invalid=int(item.invalid)))
            task_created(core, row.id, 0, item.request, verdict.at)
        case "replayed":
            placed.done.append(item.message)
            placed.tasks.append(verdict.task_id)
            placed.counts = placed.counts.plus(Counts(duplicates=1))
        case "mismatch":
            # the same message, read under another definition of the source
            placed.done.append(item.message)
            placed.counts = placed.counts.plus(Counts(duplicates=1))
        case "queue_full" | "key_full":
            placed.waiting.append(item.message)
            placed.problem = f"queue {row.name} is full"
        case _:
            # its definition has changed since it was read, or a key has just expired
            core.queues.forget(row.tenant_id, row.name)
            placed.waiting.append(item.message)


async def _bury(core: Core, row: QueueRow, items: Sequence[_Item], placed: Placed) -> None:
    """Enqueue tasks that are dead from the start. Raises Unavailable, Refusal."""
    faults = [storable(item.fault or "invalid") for item in items]
    write = partial(sources.enqueue_dead, core.db, [item.entry for item in items], faults)
    receipt = await partitions.with_days(core.db, write)
    buried = 0
    for ordinal, item in enumerate(items, 1):
        verdict = receipt.verdicts.get(ordinal, ["created"])[0]
        if verdict in ("created", "replayed", "mismatch"):
            placed.done.append(item.message)
            duplicate = verdict != "created"
            buried += not duplicate
            more = Counts(duplicates=1) if duplicate else Counts(enqueued=1, invalid=1)
            placed.counts = placed.counts.plus(more)
        else:
            placed.waiting.append(item.message)
            placed.problem = f"queue {row.name} is full"
            if verdict not in ("queue_full", "key_full"):
                core.queues.forget(row.tenant_id, row.name)
    if buried:
        core.stats.enqueued(row.id, buried)
        core.stats.ended_waiting(row.id, "dead", "invalid_message", buried)
    if receipt.callbacks is not None:
        core.called_back(receipt.callbacks)
