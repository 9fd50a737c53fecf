"""The verb `why`: what keeps a task or a queue from moving, who has a task, how it ended."""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

import msgspec
from msgspec import UNSET

from app.domain.callers import Actor, Caller
from app.domain.errors import queue_not_found
from app.domain.handlers import handler_to_dict
from app.domain.hiding import shown_to
from app.domain.instants import format_instant, parse_instant
from app.domain.limits import limit_to_dict
from app.domain.queues import queue_to_dict
from app.domain.schedules.times import EPOCH, LATEST, MICROSECOND, times_after
from app.domain.tasks import Reason, State
from app.domain.views import TaskView
from app.domain.waiting import WaitingFacts, WaitingFor, blockers
from app.domain.why import ByHand, Definitions, Evidence, RunningOut, WhyQueue, WhyTask, at_of
from app.domain.why_past import (
    attempt_line,
    ended_actions,
    ended_verdict,
    may_have_ended,
    running_actions,
    running_verdict,
)
from app.domain.why_schedules import ScheduleFacts, WhySchedule
from app.domain.why_schedules import verdict as of_facts
from app.domain.why_waiting import explain, quiet, starts_about, verdict
from app.runtime.core import Core
from app.service import schedules, tasks
from app.store import audit, handlers, ledger, limit_uses, limits, tenants, views
from app.store import queues as queue_rows
from app.store import why as store
from app.store.audit import AuditFilters, AuditRow
from app.store.db import Reader
from app.store.ledger import LedgerRow
from app.store.vault import Vault
from app.store.why import Place

MAX_ATTEMPTS_TOLD = 50
AROUND = timedelta(hours=1)
"""How far from a task's end the act lies that ended it: a purge or a cancelled batch takes a while."""
MAX_ROWS = 50
MAX_PAGES = 5

_QUEUE = frozenset({WaitingFor.QUEUE_LIMIT, WaitingFor.QUEUE_RATE})
_HANDLER = frozenset({WaitingFor.HANDLER_LIMIT, WaitingFor.HANDLER_RATE})
_TENANT = frozenset({WaitingFor.GLOBAL_LIMIT, WaitingFor.GLOBAL_RATE})
_LIMIT = frozenset({WaitingFor.KEY_LIMIT, WaitingFor.KEY_RATE, WaitingFor.LIMIT, WaitingFor.LIMIT_RATE})


async def of_task(core: Core, caller: Caller, task_id: str) -> WhyTask:
    """Say why a task does not start, who has it, or how it ended. Raises Refusal (task_not_found)."""
    caller.require("read")
    reads = core.db.reads(caller.tenant_id)
    found = await store.find(reads, core.vault, caller.tenant_id, task_id)
    if found is None or not caller.sees(found[0].queue):
        raise tasks.not_found(task_id)
    task, facts, place, renewed_at = found
    now = core.clock.now()
    task = shown_to(caller, task)
    if facts is not None:
        answer = await _waiting(core, caller, reads, task, facts, place, now)
    elif task.state == State.RUNNING:
        answer = _running(task, renewed_at, now)
    else:
        answer = await _ended(core.vault, caller, reads, task, now)
    answer.content_hidden = UNSET if caller.payloads else True
    return answer


async def _waiting(
    core: Core, caller: Caller, reads: Reader, task: TaskView, facts: WaitingFacts, place: Place, now: datetime
) -> WhyTask:
    evidence = await _evidence(core, caller, reads, facts, place, now, task.last_error)
    found = explain(facts, evidence)
    return WhyTask(
        task=task.id,
        state=task.state,
        verdict=verdict(found),
        blockers=found,
        ahead=evidence.ahead if facts.due else UNSET,
        starts_about=at_of(starts_about(found, facts, evidence)),
        as_of=format_instant(now),
    )


async def _evidence(
    core: Core,
    caller: Caller,
    reads: Reader,
    facts: WaitingFacts,
    place: Place,
    now: datetime,
    last_error: str | None = None,
) -> Evidence:
    codes = set(blockers(facts))
    found = await store.evidence(reads, caller.tenant_id, facts, place, codes, now, last_error)
    seen = {code: [one for one in held if caller.sees(one.queue)] for code, held in found.holders.items()}
    found = replace(found, holders=seen)
    return replace(found, definitions=await _definitions(core, caller, reads, facts, codes, keyed=found.bucket.keyed))


async def _definitions(
    core: Core, caller: Caller, reads: Reader, facts: WaitingFacts, codes: Collection[WaitingFor], *, keyed: bool
) -> Definitions:
    """Return the definitions that would have to be replaced to remove these blockers."""
    given: dict[str, Any] = {}
    if _QUEUE & set(codes):
        queue = await queue_rows.read(reads, facts.queue_id)
        given["queue"] = None if queue is None else queue_to_dict(queue.view.definition)
    if caller.queues is not None:
        return Definitions(**given)  # nothing else exists for it
    if _HANDLER & set(codes) and facts.handler_id is not None:
        handler = await handlers.read(reads, core.vault, facts.handler_id)
        if handler is not None and not handler.view.definition.headers and not handler.view.secrets_lost:
            given["handler"] = handler_to_dict(handler.view.definition)
    if _TENANT & set(codes):
        tenant = await tenants.read_limits(reads, caller.tenant_id)
        given |= {"tenant": limit_to_dict(tenant.own), "granted": tenant.granted_max_concurrency}
    parked = facts.parked
    if _LIMIT & set(codes) and parked is not None and not parked.paused:
        if keyed and parked.key is not None:
            given["key"] = await limit_uses.override_of(reads, parked.limit_id, parked.key, weighs=parked.limit is None)
        else:
            limit = await limits.read(reads, parked.limit_id)
            given["limit"] = None if limit is None else limit_to_dict(limit.view.definition)
    return Definitions(**given)


def _running(task: TaskView, renewed_at: datetime | None, now: datetime) -> WhyTask:
    return WhyTask(
        task=task.id,
        state=task.state,
        verdict=running_verdict(task),
        running=RunningOut(
            started_at=task.started_at or "",
            lease_expires_at=task.lease.expires_at if task.lease else "",
            replica=UNSET if task.handler is None else task.replica or UNSET,
            renewed_at=at_of(renewed_at),
            progress=UNSET if task.progress is None else task.progress,
        ),
        actions=list(running_actions(task)),
        as_of=format_instant(now),
    )


async def _ended(vault: Vault, caller: Caller, reads: Reader, task: TaskView, now: datetime) -> WhyTask:
    attempts = await views.list_attempts(reads, vault, caller.tenant_id, task.id, 2**31 - 1, MAX_ATTEMPTS_TOLD)
    return WhyTask(
        task=task.id,
        state=task.state,
        verdict=ended_verdict(task),
        reason=task.reason or UNSET,
        ended_at=task.ended_at or UNSET,
        by=await _by(reads, caller, task) or UNSET,
        attempts=[attempt_line(attempt, with_error=caller.payloads) for attempt in attempts],
        actions=list(ended_actions(task)),
        as_of=format_instant(now),
    )


async def _by(reads: Reader, caller: Caller, task: TaskView) -> ByHand | None:
    """Return who ended a task, by the audit; None if nobody did by hand, or it is not known any more."""
    acts: list[tuple[str, str, str]] = []
    if task.reason == Reason.REQUESTED:
        acts = [("cancel", "task", task.id)] + ([] if task.batch is None else [("cancel", "batch", task.batch)])
    elif task.reason == Reason.PURGED:
        acts = [("purge", "queue", task.queue)]
    ended_at = parse_instant(task.ended_at or "")
    if ended_at is None:
        return None
    for verb, noun, name in acts:
        filters = AuditFilters(verb=verb, noun=noun, name=name, from_=ended_at - AROUND, to=ended_at + AROUND)
        rows, _ = await _audited(reads, caller, filters)
        if (done := next((row for row in rows if row.outcome == "done"), None)) is not None:
            return _hand(done)
    filters = AuditFilters(verb="start", noun="action", from_=ended_at - AROUND, to=ended_at)
    rows, all_ = await _audited(reads, caller, filters) if acts else ([], True)
    # an action does not write on its tasks who began it: it is told if only one can have been it
    fit = [
        row for row in rows if row.outcome == "done" and may_have_ended(task, msgspec.json.decode(row.after or "{}"))
    ]
    return _hand(fit[0]) if len(fit) == 1 and all_ else None


async def _audited(reads: Reader, caller: Caller, filters: AuditFilters) -> tuple[list[AuditRow], bool]:
    """Return rows of the audit, newest first, and whether these are all. On a busy database a page ends before it is full."""
    found: list[AuditRow] = []
    position = None
    for _ in range(MAX_PAGES):
        rows, position = await audit.list_page(reads, caller.tenant_id, filters, position, MAX_ROWS)
        found += rows
        if position is None:
            return found, True
    return found, False


def _hand(row: AuditRow) -> ByHand:
    return ByHand(cast(Actor, row.actor), row.actor_key or UNSET, format_instant(row.at), row.request_id or UNSET)


async def of_queue(core: Core, caller: Caller, name: str) -> WhyQueue:
    """Say why a queue does not move: what blocks that of its tasks which is blocked least. Raises Refusal (queue_not_found)."""
    caller.require("read")
    reads = core.db.reads(caller.tenant_id)
    queue_id = await queue_rows.id_of(reads, caller.tenant_id, name) if caller.sees(name) else None
    if queue_id is None:
        raise queue_not_found(name)
    now = core.clock.now()
    await core.stats.flush(core.db)
    flow = await store.flow_of(reads, caller.tenant_id, queue_id, now)
    facts, place = min(await store.heads(reads, caller.tenant_id, queue_id), key=lambda head: _hindered(*head))
    evidence = await _evidence(core, caller, reads, facts, Place(None, place.priority, place.run_at), now)
    found = [blocker for blocker in explain(facts, evidence) if not quiet(blocker)]
    drains = None
    gain = flow.ends_per_second - flow.enqueued_per_second
    moves = all(blocker.code == WaitingFor.WORKER for blocker in found)  # workers ask in between
    if flow.ready and moves and gain > 0:
        drains = now + timedelta(seconds=flow.ready / gain)
    return WhyQueue(
        queue=name,
        verdict=_verdict_of_queue(found, flow),
        blockers=found,
        ready=flow.ready,
        running=flow.running,
        first=UNSET if place.task_id is None else place.task_id,
        next_run_at=at_of(flow.next_run_at) if not flow.ready else UNSET,
        starts_per_minute=round(flow.starts_per_second * 60, 3),
        drains_about=at_of(drains),
        as_of=format_instant(now),
    )


def _hindered(facts: WaitingFacts, place: Place) -> tuple[bool, int, int]:
    """Order heads of a queue: real tasks first, then by how many blockers hold, then by priority."""
    return place.task_id is None, len(list(blockers(facts))), -place.priority


def _verdict_of_queue(found: list[Any], flow: store.Flow) -> str:
    if found:
        return verdict(found)
    if not flow.ready and flow.next_run_at is not None:
        return f"Nothing is ready; the next scheduled task is due at {format_instant(flow.next_run_at)}."
    return "Nothing stops it." if flow.ready else "Nothing is ready."


async def of_schedule(
    core: Core, caller: Caller, name: str, at: datetime | None
) -> tuple[WhySchedule, LedgerRow | None]:
    """Say why a schedule did or did not fire at an instant, or why it did not fire last, with the row of its ledger.

    Raises Refusal (schedule_not_found).
    """
    reads = core.db.reads(caller.tenant_id)
    row = await schedules.find(reads, caller, name)
    now = core.clock.now()
    may_fire = at is not None and EPOCH <= at <= LATEST
    newest: list[LedgerRow] = []
    if at is None:
        newest, _ = await ledger.history(reads, row.id, outcome=None, from_=None, to=None, before=None, limit=1)
    elif may_fire:
        newest = await ledger.overlapping(reads, row.id, at, at + MICROSECOND, 1)
    definition = schedules.definition_of(row)
    coming = row.next_nominal_at
    overdue = at is None and not row.paused and coming is not None and coming <= now
    line = newest[0] if newest and not overdue else None
    is_time = at is not None and may_fire and next(times_after(definition, at - MICROSECOND), None) == at
    found, step = of_facts(
        ScheduleFacts(
            name=name,
            now=now,
            created_at=row.created_at,
            at=at,
            paused=row.paused,
            paused_reason=row.paused_reason,
            next_nominal_at=coming,
            is_time=is_time,
            engine=core.engine_lives,
            **({} if line is None else _line(line)),
        )
    )
    return WhySchedule(
        schedule=name,
        verdict=found,
        at=at_of(at),
        next=step,
        fires_next=UNSET if row.paused else at_of(next(schedules.coming(row, definition, now, 1), None)),
        paused_at=at_of(row.paused_at),
        as_of=format_instant(now),
    ), line


def _line(line: LedgerRow) -> dict[str, Any]:
    names = ("outcome", "nominal_at", "nominal_until", "count", "task_id", "extra")
    return {name: getattr(line, name) for name in names}
