"""Complete a task with follow-up work: the tasks that its answer names are enqueued in the same transaction.

It is all or nothing: a page that is invalid or does not fit completes nothing and enqueues nothing. A completion whose answer was
lost is sent again under its token, and then answers `repeat`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from app.domain.answers import MAX_RESULT_BYTES
from app.domain.callers import Caller
from app.domain.errors import FieldError, Refusal, invalid, pointer
from app.domain.followups import FollowupPage, OnComplete, parse_followup
from app.domain.options import Options
from app.domain.outcomes import FollowupsFault
from app.domain.tasks import Enqueue
from app.runtime.catalogue import until_current
from app.runtime.core import Core
from app.runtime.entries import check, entry_of, named_queue, new_ids
from app.runtime.pieces import in_pieces
from app.runtime.schemas import CheckBudget
from app.store import batches, handlers, partitions
from app.store.batches import Completion, Followed
from app.store.contents import completion_digest, seal_apart, seal_outcome
from app.store.enqueues import Entry, KeysHeld
from app.store.handlers import OwnHandler
from app.store.queues import QueueRow
from app.store.tasks import AttemptEnd
from app.store.vault import Vault
from app.telemetry.tracing import TraceContext

MAX_ERRORS = 20
"""How many pointers the refusal of a page lists at most."""


@dataclass(slots=True)
class _PageEntries:
    """Collects the entries of a page, or the pointers of tasks that break a rule.

    If validation is impossible now, because the database or the schema checks are unavailable, it raises Refusal (unavailable):
    that is not the page's fault.
    """

    core: Core
    caller: Caller
    context: TraceContext | None
    entries: list[Entry] = field(default_factory=list)
    errors: list[FieldError] = field(default_factory=list)
    own: dict[str, OwnHandler | None] = field(default_factory=dict)
    due: list[float] = field(default_factory=list)
    """When tasks of the page become due or expire, in Unix seconds."""
    budget: CheckBudget = field(default_factory=CheckBudget)

    async def add(self, queue: str, task: Enqueue, where: str) -> None:
        core, caller = self.core, self.caller
        own = None
        if task.handler is not None:
            if task.handler not in self.own:
                self.own[task.handler] = await handlers.find_own(core.db, caller.tenant_id, task.handler)
            own = self.own[task.handler]
        try:
            row = await named_queue(core, caller, queue, where + "/queue")
            # their keys belong to the batch, so they never replay an ordinary enqueue with the same key
            await check(core, row, own, msgspec.structs.replace(task, idempotency_key=None), where, budget=self.budget)
        except Refusal as refusal:
            if refusal.code == "unavailable":
                raise
            self.errors += refusal.errors or [FieldError(where, refusal.detail)]
            return
        entry = entry_of(core, new_ids(core, 1)[0], row, own.id if own else 0, task, self.context)
        self.entries.append(entry)
        now = core.clock.now()
        self.due += [at.timestamp() for at in (task.run_at_from(now), task.expires_at_from(now)) if at and at > now]
        if task.debounce_max_seconds is not None:
            self.due.append(now.timestamp())  # it may postpone a task to a time that is not known here


def result_of(page: FollowupPage) -> tuple[bytes | None, str | None, bool]:
    """Return (bytes, format, truncated) as a task stores them. A result that is too long is cut and then no longer JSON."""
    if page.result is None:
        return None, None, False
    if len(page.result) > MAX_RESULT_BYTES:
        return page.result[:MAX_RESULT_BYTES], "text" if page.result_format == "json" else page.result_format, True
    return page.result, page.result_format, page.result_truncated


def follows(page: FollowupPage) -> bool:
    return bool(page.spans or page.next is not None or page.on_complete is not None)


def fault(refusal: Refusal) -> tuple[FollowupsFault, str]:
    """Return what a refused page means for the task that answered it, and the text for its last_error."""
    pointers = "; ".join(f"{error.pointer}: {error.detail}".removeprefix(": ") for error in refusal.errors)
    error = f"the follow-up work was refused: {pointers or refusal.detail}"
    if refusal.code == "too_large":
        return "too_large", error
    return ("queue_full" if refusal.code in ("queue_full", "key_full", "unavailable") else "invalid"), error


async def settle(
    core: Core,
    caller: Caller,
    outcome: AttemptEnd,
    page: FollowupPage,
    lane: tuple[int, int],
    options: Options,
    context: TraceContext | None,
) -> str:
    """Complete the task and enqueue its follow-up work; return applied, repeat, stale or unknown. `lane` is the task's own, for its
    continuation, and `options` what it carries.

    Raises Refusal, and then nothing has changed: invalid (with pointers into the page), queue_full and key_full (no room
    now), too_large (more tasks for a queue or key than its max_depth), unavailable.
    """
    result, result_format, truncated = result_of(page)
    outcome = outcome._replace(result=result, result_format=result_format, result_truncated=truncated)
    outcome = seal_outcome(core.vault, caller.tenant_id, options, outcome)
    if not follows(page):
        return await core.settling.submit(outcome)

    async def attempt() -> str | None:
        collected, completion = await _make(core, caller, page, context)
        followed = await _settled(core, outcome, collected.entries, page.next, completion)
        match followed.verdict:
            case "changed":
                core.queues.forget_all(caller.tenant_id)
            case "queue_full":
                raise Refusal(
                    "queue_full",
                    f"queue {followed.queue} has no room for these tasks under its max_depth",
                    retry_after_seconds=1,
                )
            case "key_full":
                raise Refusal(
                    "key_full",
                    f"a key of queue {followed.queue} has no room for these tasks under its max_depth",
                    retry_after_seconds=1,
                )
            case "too_large":
                raise Refusal(
                    "too_large",
                    f"the follow-up work has more tasks than the max_depth of queue {followed.queue}; split it over several pages",
                )
            case verdict:
                if verdict == "applied":
                    core.waiters.ended((outcome.task_id,))
                    _followups_created(core, collected, followed, lane if page.next is not None else None)
                return verdict
        return None

    return await until_current(attempt, "a queue of the page")


async def _settled(
    core: Core, outcome: AttemptEnd, entries: Sequence[Entry], next_cursor: str | None, completion: Completion | None
) -> Followed:
    """Raises KeysHeld, Unavailable."""
    # their keys belong to the batch, but their unique keys to everybody; a wait for one would keep the queue's depth locked
    unique = [entry._replace(key=None) for entry in entries if entry.unique_key is not None]
    if await core.taken_keys.still_held(core.db, unique):
        raise KeysHeld
    settled = partial(
        batches.settle_followups, core.db, outcome, entries, next_cursor, completion, told=core.called_back
    )
    try:
        return await partitions.with_days(core.db, settled)
    except KeysHeld:
        await core.taken_keys.held(core.db, unique)
        raise


def completion_of(vault: Vault, row: QueueRow, then: OnComplete) -> Completion:
    """Return what a batch enqueues in this queue when it completes."""
    digest, payload, sealed_for = completion_digest(vault, row.id, then.payload, then.type), then.payload, None
    if row.encrypt:
        sealed_for, payload = seal_apart(vault, row.tenant_id, payload)
    return Completion(row.id, row.version, digest, payload, sealed_for, then.type)


async def _make(
    core: Core, caller: Caller, page: FollowupPage, context: TraceContext | None
) -> tuple[_PageEntries, Completion | None]:
    collected = _PageEntries(core, caller, context)
    async for n, span in in_pieces(enumerate(page.spans)):
        try:
            item = parse_followup(span, n, core.max_payload_bytes)
        except Refusal as refusal:
            collected.errors += refusal.errors
        else:
            await collected.add(item.queue, item.task, pointer("tasks", n))
        if len(collected.errors) >= MAX_ERRORS:
            break
    completion = None
    if page.on_complete is not None:
        then = _PageEntries(core, caller, None)
        await then.add(page.on_complete.queue, Enqueue(page.on_complete.payload, page.on_complete.type), "/on_complete")
        collected.errors += then.errors
        if then.entries:
            row = await named_queue(core, caller, page.on_complete.queue, "/on_complete/queue")
            completion = completion_of(core.vault, row, page.on_complete)
    if collected.errors:
        raise invalid(collected.errors[:MAX_ERRORS])
    return collected, completion


def _followups_created(
    core: Core, collected: _PageEntries, followed: Followed, continued: tuple[int, int] | None
) -> None:
    """Count what was enqueued, and wake whoever must act on it."""
    core.metrics.group_written("settle_followups", len(collected.entries))
    created = Counter(followed.created)
    lanes = {(entry.queue_id, entry.handler_id) for entry in collected.entries}
    if continued is not None:
        created[continued[0]] += 1
        lanes.add(continued)
    for queue_id, count in created.items():
        core.stats.enqueued(queue_id, count)
    for lane in lanes:
        core.signals.lane_ready(*lane)
    if collected.due:
        core.signals.task_due_at(min(collected.due))
    core.signals.batch_changed()
