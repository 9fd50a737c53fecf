"""Verbs on messages: what SQS clients send, receive, delete and hide. A message is a task of a pull queue.

A receipt handle is the token of a lease. While nobody has received the message again, it still acts on it after the lease has run
out, as SQS allows.
"""

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec

from app.domain.callers import Caller
from app.domain.errors import Refusal
from app.domain.messages import Attribute, Carried, body_of, decode_attributes, encode_attributes
from app.domain.options import Options
from app.domain.sqs import DEDUPLICATION_SECONDS, ELSEWHERE
from app.domain.tasks import Enqueue
from app.runtime.catalogue import until_current
from app.runtime.core import Core
from app.runtime.entries import check, entry_of, find_queue, needs_check, new_ids, refusal_of, task_created
from app.runtime.signals import ConcurrencySlot
from app.service import leases
from app.store import messages as store
from app.store import partitions
from app.store.contents import CONTENT_LOST, open_payload, seal_payload
from app.store.messages import Handle
from app.store.queues import QueueRow
from app.store.tasks import AttemptEnd, Claimed
from app.store.vault import VaultError
from app.telemetry.tracing import TraceContext

REAP_LIMIT = 100
MAX_HIDDEN_SECONDS = 43_200.0
"""How long a message can be hidden after one receive, extensions included."""
NOT_NOW = frozenset({"unavailable", "queue_full", "key_full"})
"""Codes with which a message is refused that may be accepted when it is sent again."""
MAX_KEY = 255
"""Characters of an idempotency key."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send, valid by itself."""

    body: str
    attributes: dict[str, Attribute]
    delay_seconds: float
    group: str | None = None
    deduplication_id: str | None = None
    trace_header: str | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    task_id: str
    created: bool
    """Not created: the first message with the same deduplication id stands for it."""


@dataclass(frozen=True, slots=True)
class Received:
    task: Claimed
    handle: Handle
    body: str
    attributes: dict[str, Attribute]
    carried: Carried | None


async def queue_of(core: Core, caller: Caller, name: str) -> QueueRow:
    """Return a queue. Raises Refusal: forbidden, queue_not_found."""
    caller.require("use")
    return await find_queue(core, caller, name)


async def send(
    core: Core, caller: Caller, queue: str, messages: Sequence[Outgoing], trace: tuple[str, str | None] | None
) -> list[Sent | Refusal]:
    """Send messages, each acknowledged after its commit. Those of one group are sent one after the other, so that they are
    received in this order. A message that is refused refuses no other, unless it can be sent again: then it refuses those behind
    it in its group.

    Raises Refusal: forbidden.
    """
    caller.require("use")
    incoming = TraceContext.parse(*trace) if trace is not None else None
    ids, results = new_ids(core, len(messages)), dict[int, Sent | Refusal]()
    turns: dict[object, list[int]] = {}
    for place, message in enumerate(messages):
        turns.setdefault(place if message.group is None else message.group, []).append(place)

    async def in_turn(places: list[int]) -> None:
        for turn, place in enumerate(places):
            try:
                results[place] = await _send(core, caller, queue, ids[place], messages[place], span.context)
            except Refusal as refusal:
                results[place] = refusal
                if refusal.code in NOT_NOW:
                    # it will be sent again, and must not come after the others of its group then
                    results.update(dict.fromkeys(places[turn:], refusal))
                    break

    with core.tracing.enqueue(queue, caller.tenant, incoming) as span:
        await asyncio.gather(*(in_turn(places) for places in turns.values()))
    return [results[place] for place in range(len(messages))]


async def _send(
    core: Core, caller: Caller, queue: str, task_id: str, message: Outgoing, context: TraceContext | None
) -> Sent:
    async def attempt() -> Sent | None:
        row = await find_queue(core, caller, queue)
        request = _request(caller, row, message)
        if needs_check(row, request):
            await check(core, row, None, request)
        if row.encrypt and message.attributes:
            request = msgspec.structs.replace(request, message=_sealed(core, row, task_id, request.message))
        entry = entry_of(core, task_id, row, 0, request, context)
        if entry.key is not None:
            # whatever the body: within five minutes, another message with this key is not delivered
            same = hashlib.sha256(b"sqs " + entry.key.encode()).digest()
            entry = entry._replace(fingerprint=same, key_seconds=DEDUPLICATION_SECONDS)
        admitted = await core.enqueueing.submit(entry)
        if admitted.verdict == "created":
            task_created(core, row.id, 0, request, admitted.at)
            return Sent(admitted.task_id, True)
        if admitted.verdict in ("replayed", "mismatch", "held"):
            return Sent(admitted.task_id, False)
        if (refusal := refusal_of(admitted.verdict, queue, request)) is not None:
            raise refusal
        core.queues.forget(caller.tenant_id, queue)
        return None

    return await until_current(attempt, "the definition of the queue")


def _request(caller: Caller, row: QueueRow, message: Outgoing) -> Enqueue:
    key = message.deduplication_id if row.fifo else None
    if key is not None and row.sqs.deduplication_scope == "messageGroup":
        key = f"{message.group} {key}"
        key = key if len(key) <= MAX_KEY else hashlib.sha256(key.encode()).hexdigest()
    return Enqueue(
        payload=msgspec.json.encode(message.body),
        delay_seconds=message.delay_seconds or None,
        ttl_seconds=None if row.sqs is ELSEWHERE else float(row.sqs.message_retention_period),
        idempotency_key=key,
        key=message.group,
        message=Carried(
            attributes=message.attributes,
            trace_header=message.trace_header,
            deduplication_id=message.deduplication_id,
            sender=caller.key_id,
        ),
    )


def _sealed(core: Core, row: QueueRow, task_id: str, carried: Carried | None) -> Carried:
    assert carried is not None
    sealed = seal_payload(core.vault, row.tenant_id, _place(task_id), encode_attributes(carried.attributes))
    return msgspec.structs.replace(carried, attributes={}, sealed=base64.b64encode(sealed).decode(), sealed_for=task_id)


def _place(task_id: str) -> str:
    return f"{task_id} attributes"


async def receive(
    core: Core,
    caller: Caller,
    queue: str,
    *,
    most: int,
    wait_seconds: float | None,
    visibility_seconds: float | None,
    gone: Callable[[], Awaitable[object]],
) -> list[Received]:
    """Receive up to so many messages, hidden from others for a while; None: as the queue says. None come if none came in time.

    Raises Refusal: forbidden, queue_not_found, queue_is_push, unavailable.
    """
    caller.require("use")
    caller.require_payloads()

    async def attempt() -> tuple[QueueRow, list[Claimed]] | None:
        row = await find_queue(core, caller, queue)
        wait = row.sqs.receive_message_wait_time_seconds if wait_seconds is None else wait_seconds
        hidden = row.sqs.visibility_timeout if visibility_seconds is None else visibility_seconds
        claimed, first = await leases.take(
            core, caller, row, max_tasks=most, wait_seconds=wait, lease_seconds=hidden, gone=gone
        )
        if first.queue_version != row.version:
            core.queues.forget(caller.tenant_id, queue)  # whoever only receives learns of changes here
        if not claimed and first.verdict == "push":
            raise Refusal("queue_is_push", f"queue {queue} delivers to a handler, so its messages cannot be received")
        if not claimed and first.verdict == "gone":
            return None
        return row, claimed

    row, claimed = await until_current(attempt, "the definition of the queue")
    if row.fifo:
        # groups take turns; those of one answer are in the order in which they were sent
        claimed.sort(key=lambda task: (task.created_at, task.task_id))
    found = [(task, _opened(core, row, task)) for task in claimed]
    for task, message in found:
        if message is None:
            await leases.fail(core, task.task_id, task.token, CONTENT_LOST, retryable=True, retry_after_seconds=0.0)
    return [message for _, message in found if message is not None]


async def first_receives(core: Core, caller: Caller, received: Sequence[Received]) -> dict[str, float]:
    """Return, by task, when these messages were received first in this queue, in Unix seconds."""
    again = [one.task.task_id for one in received if one.task.number > 1]
    earlier = await store.first_receives(core.db.reads(caller.tenant_id), again) if again else {}
    # the clock may be a fraction of a second off the database's, and so before the message was sent
    now = core.clock.seconds()
    firsts = {one.task.task_id: max(now, one.task.created_at.timestamp()) for one in received}
    return firsts | {task_id: at.timestamp() for task_id, at in earlier.items()}


def _opened(core: Core, row: QueueRow, task: Claimed) -> Received | None:
    """Return a message as it was sent; None if it cannot be decrypted."""
    options, carried = task.options, task.options.message
    try:
        payload = open_payload(core.vault, row.tenant_id, task.task_id, options, task.payload)
        attributes = {} if carried is None else carried.attributes
        if carried is not None and carried.sealed is not None:
            place = _place(carried.sealed_for or task.task_id)
            sealed = Options(sealed=True, sealed_for=place)
            opened = open_payload(core.vault, row.tenant_id, place, sealed, base64.b64decode(carried.sealed))
            attributes = decode_attributes(opened)
    except VaultError:
        return None
    handle = Handle(row.id, task.task_id, task.token, core.clock.seconds())
    return Received(task, handle, body_of(payload, binary=options.binary), attributes, carried)


async def delete(core: Core, caller: Caller, row: QueueRow, handles: Sequence[Handle]) -> None:
    """Delete messages. One that has been received again since, or deleted, stays as it is. Raises Refusal (unavailable)."""
    ends = [AttemptEnd(handle.task_id, handle.token, "succeeded", "succeeded") for handle in handles]
    verdicts = await asyncio.gather(*(core.settling.submit(end) for end in ends))
    late = [handle for handle, verdict in zip(handles, verdicts, strict=True) if verdict == "stale"]
    now = core.clock.seconds()
    for handle, verdict in zip(handles, verdicts, strict=True):
        if verdict == "applied":
            seconds = min(max(0.0, now - handle.received_at), MAX_HIDDEN_SECONDS)
            core.metrics.attempt_ended(caller.tenant, row.name, "succeeded", seconds)
            core.stats.ended(row.id, "succeeded", seconds, None)
    if len(late) < len(handles):
        core.signals.slot_freed(ConcurrencySlot(row.tenant_id, 0, row.id))
    if late:
        await _settle_lapsed(core, row, late, [None] * len(late))


async def hide(core: Core, row: QueueRow, handles: Sequence[Handle], seconds: Sequence[int]) -> list[bool]:
    """Hide messages for so many seconds from now on; 0: others may receive them now. Return which handles were the last ones of
    their messages. Raises Refusal (unavailable)."""
    acted = await _settle_lapsed(core, row, handles, list(seconds))
    if 0 in seconds and acted:
        await core.reaping.reap(REAP_LIMIT, row.tenant_id)
        core.signals.lane_ready(row.id, 0)
    later = [given for given in seconds if given]
    if later:
        at = core.clock.seconds() + min(later)
        core.signals.lease_ends(at)  # earlier than before, perhaps
        core.signals.task_due_at(at)
    return [handle.token in acted for handle in handles]


async def _settle_lapsed(
    core: Core, row: QueueRow, handles: Sequence[Handle], seconds: Sequence[float | None]
) -> set[str]:
    once = dict(zip(handles, seconds, strict=True))  # a batch may name a message twice
    acted = await partitions.with_days(
        core.db,
        partial(
            store.settle_lapsed,
            core.db.changes(row.tenant_id),
            list(once),
            list(once.values()),
            told=core.called_back,
        ),
    )
    ended = [one for one in acted if one.ended]
    if ended:
        core.waiters.ended(handle.task_id for handle in handles)
        core.signals.batch_changed()
        core.signals.lane_ready(row.id, 0)  # the next of a group
        for _ in ended:
            core.stats.ended(row.id, "succeeded", 0.0, None)
    return {one.token for one in acted}
