"""From a request to an entry: find its queue, check the queue's rules, and publish what was created. Shared by enqueues,
batches, schedules and follow-up work.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
from msgspec import UnsetType

from app.domain.callbacks import called_queues, target_of
from app.domain.callers import Caller
from app.domain.errors import FieldError, Refusal, batch_sealed, invalid, invalid_field, queue_not_found
from app.domain.handlers import Targets
from app.domain.instants import parse_instant
from app.domain.limits import QueueRules, task_errors
from app.domain.options import encode_options, options_of
from app.domain.targets import TaskTarget, address_of
from app.domain.tasks import Enqueue, check_instants
from app.runtime.core import Core
from app.runtime.schemas import CheckBudget
from app.store import enqueues, limits
from app.store.contents import seal_payload, sealed_options
from app.store.enqueues import Entry
from app.store.handlers import OwnHandler
from app.store.queues import QueueRow
from app.telemetry.tracing import TraceContext

NO_RULES = QueueRules()


def refusal_of(verdict: str, queue: str, request: Enqueue) -> Refusal | None:
    """Return the refusal; None for changed, handler_gone and again, after which the entry must be rebuilt."""
    if verdict == "mismatch":
        return Refusal(
            "idempotency_mismatch",
            f"idempotency key {request.idempotency_key!r} was already used with a different payload or options; use a new key",
        )
    if verdict == "batch_sealed":
        return batch_sealed()
    if verdict == "queue_full":
        return Refusal(
            "queue_full",
            f"queue {queue} is full: it holds max_depth tasks; try again when some have ended",
            retry_after_seconds=1,
        )
    if verdict == "key_full":
        return key_full(queue, request.key or "")
    return None


def key_full(queue: str, key: str) -> Refusal:
    return Refusal(
        "key_full",
        f"key {key} of queue {queue} is full: it holds max_depth tasks; try again when some have ended",
        retry_after_seconds=1,
    )


def needs_check(row: QueueRow, request: Enqueue) -> bool:
    """Return whether `check` has anything to check."""
    return (
        row.payload_schema is not None
        or request.handler is not None
        or request.target is not None
        or request.run_at is not None
        or request.expires_at is not None
        or row.rules != NO_RULES
        or bool(request.limits)
        or request.callbacks is not None
    )


async def check(
    core: Core,
    row: QueueRow,
    own: OwnHandler | None,
    request: Enqueue,
    where: str = "",
    *,
    fresh: bool = False,
    budget: CheckBudget | None = None,
) -> None:
    """Check the rules that need the queue, the task's own handler, or the present instant. `where` is the task's pointer.

    If `row` is outdated, the check passes: the statement that stores refuses an entry made from such a row. A `fresh` row has been
    compared during this request already. Checks of one request share a `budget`.
    Raises Refusal: invalid, egress_denied, payload_schema_mismatch, unavailable.
    """
    try:
        check_handler(row, own, request, where)
        await _check_unless_replayed(core, row, own, request, where, budget)
    except Refusal as refusal:
        if fresh or refusal.code == "unavailable" or await core.queues.is_current(row):
            raise


async def _check_unless_replayed(
    core: Core, row: QueueRow, own: OwnHandler | None, request: Enqueue, where: str, budget: CheckBudget | None
) -> None:
    try:
        check_instants(request, core.clock.now(), where)
        if request.target is not None:
            check_own_target(core, row, own, request.target, where)
        if request.callbacks is not None:
            await check_callbacks(core, row.tenant_id, request.callbacks, where)
        if row.payload_schema is not None:
            await check_schema(core, row, request, where, budget)
        await check_limits(core, row, own, request, where)
    except Refusal as refusal:
        # a replay gets the first answer, even if its instants have passed, or the schema or handler has changed in the meantime
        if refusal.code == "unavailable" or request.idempotency_key is None:
            raise
        if not await enqueues.knows_key(core.db.lookups(row.tenant_id), row.id, request.idempotency_key):
            raise


async def check_limits(core: Core, row: QueueRow, own: OwnHandler | None, request: Enqueue, where: str = "") -> None:
    """Check the key and the limits of a task. That the limits still exist, the statement that stores checks again.

    Raises Refusal (invalid).
    """
    rules, known = row.rules, row.known
    if own is not None:
        rules = replace(rules, handler_uses=own.limits)
    missing = {use.name for use in (*request.limits, *rules.handler_uses)} - known.keys()
    if missing:
        known = {**known, **await limits.rules(core.db.lookups(row.tenant_id), row.tenant_id, missing)}
    if errors := task_errors(request.key, request.limits, rules, known, where):
        raise invalid(errors)


async def check_callbacks(core: Core, tenant_id: int, callbacks: dict[str, Any], where: str = "") -> None:
    """Check that the queues which callbacks name exist, and that their handlers allow the callbacks' targets.

    Raises Refusal: invalid, egress_denied, unavailable.
    """
    errors = []
    for state, name in called_queues(callbacks).items():
        at = f"{where}/callbacks/{state}"
        row = core.queues.get(tenant_id, name) or await core.queues.load(tenant_id, name)
        if row is None:
            errors.append(FieldError(at + "/queue", f"there is no queue {name}; PUT /queues/{name} creates it"))
        elif (target := target_of(callbacks[state])) is not None:
            check_own_target(core, row, None, target, at)
    if errors:
        raise invalid(errors)


def check_handler(row: QueueRow, own: OwnHandler | None, request: Enqueue, where: str = "") -> None:
    if request.handler is not None and row.handler_id is None:
        raise invalid_field(
            where + "/handler", f"queue {row.name} is for pull workers, so its tasks cannot name a handler"
        )
    if request.handler is not None and own is None:
        raise invalid_field(
            where + "/handler", f"there is no handler {request.handler}; PUT /handlers/{request.handler} creates it"
        )


def check_own_target(core: Core, row: QueueRow, own: OwnHandler | None, target: TaskTarget, where: str = "") -> None:
    """Check a task's target against the handler that will deliver it: the task's own, or the queue's. Raises as check_target."""
    if own is not None:
        check_target(core, target, own.url, own.targets, where)
    elif row.handler_url is None or row.handler_targets is None:
        raise pull_queue_target(row.name, where)
    else:
        check_target(core, target, row.handler_url, row.handler_targets, where)


def pull_queue_target(queue: str, where: str = "") -> Refusal:
    """Return the refusal of a target on a queue without a handler."""
    return invalid_field(
        where + "/target", f"queue {queue} is for pull workers, so its tasks cannot say where to deliver them"
    )


def check_target(core: Core, target: TaskTarget, handler_url: str, allowed: Targets, where: str = "") -> None:
    """Check a target against its handler's URL and `targets`. Raises Refusal: invalid, egress_denied."""
    address = address_of(target, handler_url, allowed, where + "/target")
    if not isinstance(target.url, UnsetType):
        core.delivery.check_url(address, where + "/target/url")


async def check_schema(
    core: Core, row: QueueRow, request: Enqueue, where: str = "", budget: CheckBudget | None = None
) -> None:
    """Check a payload against its queue's schema. Raises Refusal: payload_schema_mismatch, unavailable."""
    if row.payload_schema is None:
        return
    if request.binary:
        detail = f"queue {row.name} has a payload_schema, which only a JSON payload can match"
        raise Refusal("payload_schema_mismatch", detail, [FieldError(where + "/payload_base64", detail)])
    await core.schemas.check(row.tenant_id, row.payload_schema, request.payload, where, budget)


async def find_queue(core: Core, caller: Caller, name: str) -> QueueRow:
    """Return the queue, from the cache if possible: the statement that stores refuses entries made from an outdated definition."""
    row = core.queues.get(caller.tenant_id, name) or await core.queues.load(caller.tenant_id, name)
    if row is None or not caller.sees(name):
        raise queue_not_found(name)
    return row


async def named_queue(core: Core, caller: Caller, name: str, where: str) -> QueueRow:
    """Return the queue that a document names at the pointer `where`. Raises Refusal: invalid if it does not exist, unavailable."""
    try:
        return await find_queue(core, caller, name)
    except Refusal as refusal:
        if refusal.code != "queue_not_found":
            raise
        raise invalid_field(where, refusal.detail) from None


def new_ids(core: Core, count: int) -> list[str]:
    """Return ids for this many tasks, in ascending order."""
    return core.ids.uuid7s(int(core.clock.seconds() * 1000), count)


def entry_of(
    core: Core, task_id: str, row: QueueRow, handler_id: int, request: Enqueue, context: TraceContext | None
) -> Entry:
    options, payload = options_of(request), request.payload
    if row.encrypt:
        options, payload = sealed_options(options), seal_payload(core.vault, row.tenant_id, task_id, payload)
    if context is not None:
        options = msgspec.structs.replace(options, traceparent=context.traceparent, tracestate=context.tracestate)
    key = request.idempotency_key
    # by position, because names cost as much as everything else here
    return Entry(
        task_id,
        row.id,
        row.version,
        handler_id,
        payload,
        key,
        _fingerprint(core, row, request) if key is not None else None,
        request.unique_key,
        request.priority,
        request.run_at,
        request.delay_seconds,
        request.expires_at,
        request.ttl_seconds,
        None if request.retry is None else request.retry.get("max_attempts"),
        encode_options(options),
        request.on_duplicate,
        request.debounce_max_seconds,
    )


def _fingerprint(core: Core, row: QueueRow, request: Enqueue) -> bytes:
    """Return what two requests with one idempotency key must share.

    Where payloads are stored as they are, it has a second half, which the database can compute, too, for sluice.enqueue. One match
    of the two is enough.
    """
    keyed = request.fingerprint(core.vault.fingerprint_key)
    return keyed if row.encrypt else keyed + request.plain_fingerprint()


def is_timed(request: Enqueue) -> bool:
    """Return whether the task may start later than now, or expires."""
    return (
        bool(request.delay_seconds or request.ttl_seconds)
        or request.run_at is not None
        or request.expires_at is not None
    )


def tasks_ready(core: Core, queue_id: int, handler_id: int, count: int) -> None:
    """Count created tasks of one lane that may start now, and wake whoever claims them."""
    core.stats.enqueued(queue_id, count)
    core.signals.lane_ready(queue_id, handler_id)


def task_replaced(core: Core, queue_id: int, handler_id: int, request: Enqueue, at: str) -> None:
    """Wake whoever must act on a waiting task that has taken a request's payload and options: it may be ready, or due at another
    time than before."""
    now = parse_instant(at)
    assert now is not None
    core.signals.lane_ready(queue_id, handler_id)
    for due_at in (request.run_at_from(now), request.expires_at_from(now)):
        if due_at is not None and due_at > now:
            # limited by the creation of a task that is not known here: whoever promotes looks when the next one is due
            core.signals.task_due_at((now if request.debounce_max_seconds is not None else due_at).timestamp())


def task_created(
    core: Core, queue_id: int, handler_id: int, request: Enqueue, at: str
) -> tuple[datetime | None, datetime | None]:
    """Count a created task and wake whoever must act on it; return its run_at, if in the future, and its expires_at."""
    run_at = expires_at = None
    if is_timed(request):
        now = parse_instant(at)
        assert now is not None
        run_at, expires_at = request.run_at_from(now), request.expires_at_from(now)
        if run_at <= now:
            run_at = None
    if expires_at is not None:
        core.signals.task_due_at(expires_at.timestamp())
    if run_at is None:
        tasks_ready(core, queue_id, handler_id, 1)
    else:
        core.stats.enqueued(queue_id, 1)
        core.signals.task_due_at(run_at.timestamp())
    return run_at, expires_at
