"""Leases of pull workers and of handlers that hold: one protocol for both.

A worker asks for tasks and may wait for them (a long poll). Afterwards the lease token alone authorises its holder to renew,
complete, fail or release. A token settles once; a repeated call is answered like the first and writes nothing. A lease that has
expired is lost, whether or not it has been reaped.
"""

import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import msgspec

from app.domain.answers import MAX_RESULT_BYTES
from app.domain.callers import STRANGERS, Caller
from app.domain.errors import Refusal, queue_not_found
from app.domain.followups import FollowupPage
from app.domain.instants import format_instant
from app.domain.options import Options
from app.domain.outcomes import Settlement, Terms, decide_failure
from app.domain.retries import effective_retry
from app.domain.schedules.zones import local_time
from app.domain.views import LeasedTaskView, TaskView
from app.runtime import followups
from app.runtime.core import Core
from app.runtime.long_polls import BUSY_SECONDS, LongPoll
from app.runtime.signals import ConcurrencySlot
from app.store import queues, tasks, views
from app.store.contents import CONTENT_LOST, seal_outcome
from app.store.queues import QueueRow
from app.store.tasks import AttemptEnd, Claim, Claimed
from app.telemetry.tracing import TraceContext

MAX_TASKS = 100
MAX_WAIT_SECONDS = 60.0
MAX_PROGRESS_BYTES = 65_536


async def acquire(
    core: Core,
    caller: Caller,
    queue: str,
    *,
    max_tasks: int,
    wait_seconds: float,
    lease_seconds: float,
    gone: Callable[[], Awaitable[object]],
) -> list[LeasedTaskView]:
    """Return leased tasks, each with `lease_token` and `lease_expires_at`; none if none came in time.

    Raises Refusal: forbidden (the key may not read payloads), queue_not_found, queue_is_push, unavailable (too many wait).
    """
    caller.require("use")
    caller.require_payloads()
    row = await queues.find(core.db.lookups(caller.tenant_id), caller.tenant_id, queue)
    if row is None or not caller.sees(queue):
        raise queue_not_found(queue)
    if row.handler_id is not None:
        raise Refusal(
            "queue_is_push", f"queue {queue} delivers to handler {row.handler}, so its tasks cannot be pulled"
        )
    claimed, _ = await take(
        core,
        caller,
        row,
        max_tasks=max_tasks,
        wait_seconds=wait_seconds,
        lease_seconds=lease_seconds,
        gone=gone,
    )
    shown = await views.find_tasks(core.db, core.vault, caller.tenant_id, [task.task_id for task in claimed])
    for task in claimed:
        if task.task_id in shown and shown[task.task_id].content_lost is True:
            del shown[task.task_id]
            await fail(core, task.task_id, task.token, CONTENT_LOST, retryable=True, retry_after_seconds=0.0)
    return [
        LeasedTaskView(
            # with the batch whose completion enqueued it, as a handler learns it
            **{**msgspec.structs.asdict(shown[task.task_id]), "batch": task.batch_id},
            cursor=task.options.cursor,
            schedule_timezone=task.options.schedule_timezone,
            scheduled_for_local=_local(task.options),
            lease_token=task.token,
            lease_expires_at=format_instant(task.lease_expires_at),
        )
        for task in claimed
        if task.task_id in shown
    ]


async def take(
    core: Core,
    caller: Caller,
    row: QueueRow,
    *,
    max_tasks: int,
    wait_seconds: float,
    lease_seconds: float,
    gone: Callable[[], Awaitable[object]],
) -> tuple[list[Claimed], Claim]:
    """Return leased tasks of a pull queue as they are stored, none if none came in time, and the first claim.

    Raises Refusal (unavailable: too many wait).
    """
    core.long_polls.asked(row.id)
    until = time.monotonic() + wait_seconds
    claim = await core.claiming.pull(row.tenant_id, row.id, max_tasks, lease_seconds)
    claimed = claim.tasks
    if not claimed and not core.long_polls.closed and (wait_seconds > 0 or claim.verdict == "busy"):
        seconds = max(until - time.monotonic(), 10 * BUSY_SECONDS)
        async with AsyncExitStack() as stack:
            if wait_seconds > 0:
                await stack.enter_async_context(core.waits.turn(caller.tenant_id))
            claimed = await core.long_polls.wait(
                LongPoll(row.tenant_id, row.id, max_tasks, lease_seconds), seconds, gone
            )
    now = core.clock.seconds()
    for task in claimed:
        waited = max(0.0, now - task.run_at.timestamp())
        core.metrics.task_started(caller.tenant, row.name, waited)
        core.stats.started(row.id, waited)
        if row.rules.uses or task.options.limits:
            core.metrics.limits_taken(caller.tenant, (use.name for use in (*row.rules.uses, *task.options.limits)))
    return claimed, claim


def _local(options: Options) -> str | None:
    if options.scheduled_for is None or options.schedule_timezone is None:
        return None
    local = local_time(options.scheduled_for, options.schedule_timezone)
    return None if local is None else local.isoformat(timespec="microseconds")


async def renew(core: Core, task_id: str, token: str, seconds: float, progress: bytes | None) -> TaskView:
    """Extend a lease. Raises Refusal: lease_lost, task_cancelled, too_large."""
    if progress is not None and len(progress) > MAX_PROGRESS_BYTES:
        raise Refusal("too_large", f"the progress has {len(progress)} bytes, at most {MAX_PROGRESS_BYTES} are allowed")
    encoded = None if progress is None else progress.decode()
    if await tasks.extend_lease(core.db, task_id, token, seconds, encoded) is None:
        raise await _refusal(core, task_id, token)
    return await _view(core, task_id)


async def complete(core: Core, task_id: str, token: str, page: FollowupPage) -> TaskView:
    """Complete a task, with its follow-up work if the page names any. A refusal leaves the lease as it is.

    Raises Refusal: lease_lost, task_cancelled, invalid, too_large, queue_full, key_full.
    """
    if page.result is not None and len(page.result) > MAX_RESULT_BYTES:
        raise Refusal("too_large", f"the result has {len(page.result)} bytes, at most {MAX_RESULT_BYTES} are allowed")
    held = await _held(core, task_id, token)
    result, result_format, truncated = followups.result_of(page)
    # without a lease it is a repeat or late, and no result is written
    outcome = AttemptEnd(
        task_id,
        token,
        "succeeded",
        "succeeded",
        result=result,
        result_format=result_format,
        result_truncated=truncated,
    )
    if held is None:
        return await _settle(core, outcome._replace(result=None), held)
    if not followups.follows(page):
        return await _settle(core, seal_outcome(core.vault, held.tenant_id, held.options, outcome), held)
    caller = Caller(held.tenant_id, held.tenant, "use")
    lane = (held.queue_id, held.lane)
    context = TraceContext.parse(held.options.traceparent, held.options.tracestate)
    verdict = await followups.settle(core, caller, outcome, page, lane, held.options, context)
    return await _settled(core, outcome, held, verdict)


async def fail(
    core: Core, task_id: str, token: str, error: str, *, retryable: bool, retry_after_seconds: float
) -> TaskView:
    """End an attempt as failed. Raises Refusal: lease_lost, task_cancelled."""
    held = await _held(core, task_id, token)
    settlement = Settlement("retry", "failed", error=error)
    if held is not None:
        policy = await queues.load_policy(core.db, held.queue_id)
        assert policy is not None, "queues are marked deleted, never removed"
        retry = effective_retry(policy.retry, held.options.retry)
        terms = Terms(held.attempt, retry, core.clock.now(), random.random())
        settlement = decide_failure(terms, error, retryable=retryable, retry_after_seconds=retry_after_seconds)
    outcome = AttemptEnd(
        task_id,
        token,
        settlement.kind,
        settlement.outcome,
        reason=settlement.reason,
        delay_seconds=settlement.delay_seconds,
        message=settlement.error,
    )
    return await _settle(core, outcome, held)


async def release(core: Core, task_id: str, token: str) -> TaskView:
    """Make the task ready now, without counting the attempt. Raises Refusal: lease_lost, task_cancelled."""
    held = await _held(core, task_id, token)
    return await _settle(core, AttemptEnd(task_id, token, "refund", "released"), held)


async def _held(core: Core, task_id: str, token: str) -> tasks.HeldLease | None:
    """Return the lease, or None if the token once held it: its call is then a repeat, or is late and only recorded.

    Raises Refusal (lease_lost) if the token never held it, before anything is written.
    """
    held = await tasks.held_lease(core.db, task_id, token)
    if held is None and await _fate(core, task_id, token) == "unknown":
        raise lease_lost()
    return held


async def _fate(core: Core, task_id: str, token: str) -> str:
    """Return what happened to the lease of a token that holds nothing. Such callers share one set of turns: they may be anyone."""
    return await tasks.fate_of_lease(core.db.lookups(STRANGERS), task_id, token)


async def _settle(core: Core, outcome: AttemptEnd, held: tasks.HeldLease | None) -> TaskView:
    return await _settled(core, outcome, held, await core.settling.submit(outcome))


async def _settled(core: Core, outcome: AttemptEnd, held: tasks.HeldLease | None, verdict: str) -> TaskView:
    if verdict not in ("applied", "repeat"):
        raise await _refusal(core, outcome.task_id, outcome.token)
    if verdict == "applied" and held is not None:
        _count(core, outcome, held)
        if outcome.kind in ("succeeded", "dead"):
            if held.batch_id is not None:
                core.signals.batch_changed()
        elif outcome.delay_seconds > 0:
            core.signals.task_due_at(core.clock.seconds() + outcome.delay_seconds)
        else:
            core.signals.lane_ready(held.queue_id, held.lane)
        core.signals.slot_freed(ConcurrencySlot(held.tenant_id, held.handler_id, held.queue_id))
    return await _view(core, outcome.task_id)


def _count(core: Core, outcome: AttemptEnd, held: tasks.HeldLease) -> None:
    """Count the attempt. If a replica's call is still running, that replica counts it when the answer comes."""
    if held.called:
        return
    seconds = max(0.0, core.clock.seconds() - held.started_at.timestamp())
    core.metrics.attempt_ended(held.tenant, held.queue, outcome.outcome, seconds)
    if outcome.kind in ("succeeded", "dead"):
        core.stats.ended(held.queue_id, outcome.kind, seconds, outcome.reason)
    elif outcome.kind == "retry":
        core.stats.retried(held.queue_id)


async def tenant_of_lease(core: Core, task_id: str, token: str) -> int:
    """Return the tenant of a token that holds the lease, or has settled it. Raises Refusal: lease_lost, task_cancelled."""
    if await _fate(core, task_id, token) not in ("held", "settled"):
        raise await _refusal(core, task_id, token)
    tenant_id = await tasks.tenant_of(core.db.lookups(STRANGERS), task_id)
    if tenant_id is None:
        raise lease_lost()
    return tenant_id


async def _refusal(core: Core, task_id: str, token: str) -> Refusal:
    if await _fate(core, task_id, token) == "cancelled":
        return Refusal("task_cancelled", "the task was cancelled; stop working on it")
    return lease_lost()


def lease_lost() -> Refusal:
    """Return the same refusal whether or not the task exists, so that it tells nothing to callers without its token."""
    return Refusal(
        "lease_lost",
        "this token holds no lease on the task; the lease expired, was settled, or never existed. Stop working on it",
    )


async def _view(core: Core, task_id: str) -> TaskView:
    view = await views.find_any(core.db, core.vault, task_id)
    if view is None:
        raise lease_lost()  # settled just now, but its retention has already passed
    return view
