"""The overview of a tenant: verdicts, alarms, every queue, and what else an operator looks at first."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import TypeVar

import msgspec
from msgspec import UNSET

from app.domain import verdicts
from app.domain.callers import Caller
from app.domain.errors import queue_not_found
from app.domain.instants import format_instant, instant_text
from app.domain.overviews import (
    Alarm,
    BatchSeen,
    Counts,
    DatabaseSeen,
    HandlerSeen,
    LimitSeen,
    Overview,
    PerMinute,
    Quantiles,
    QueueSeen,
    ReplicaSeen,
    ScheduleSeen,
    Series,
    Verdicts,
)
from app.domain.verdicts import FleetFacts, QueueFacts
from app.runtime import series as minute_series
from app.runtime.alarms import tenant_alarms
from app.runtime.core import Core
from app.runtime.looks import Look, Recent
from app.runtime.pieces import in_pieces
from app.runtime.sparklines import Points
from app.store import queues
from app.store.looks import QueueLook
from app.store.replicas import ALIVE_SECONDS, ReplicaRow

MAX_SHARED = 500
"""How many different things are kept of one look."""
MAX_CHARTED = 200
"""Of how many queues the minutes are summed for a chart."""
T = TypeVar("T")

ALARM_NAMES = ("code", "tenant", "queue", "handler", "schedule", "source", "replica")
TASK_COUNTS = ("scheduled", "ready", "running", "dead")


async def overview(core: Core, caller: Caller) -> Overview:
    """Return the caller's tenant as it was at most two seconds ago; with scope operate, also replicas and database.

    Raises Refusal (unavailable), Unavailable.
    """
    return (await shown(core, caller)).overview


@dataclass(frozen=True)
class Shown:
    """An overview, and a digest of what it shows, without when it was read and how large the database is. Ages are part of it, so
    while a task is ready, each look is news: otherwise pages would go on showing the age of the last event."""

    overview: Overview
    digest: str
    alarms: dict[str, Alarm]
    """By alarm_key."""

    @cached_property
    def body(self) -> bytes:
        """The overview as JSON, made once for all. Pages do without it."""
        return msgspec.json.encode(self.overview)


async def shown(core: Core, caller: Caller) -> Shown:
    """As `overview`, with its JSON."""
    caller.require("read")
    look = await core.looks.at(caller.tenant_id, operates=caller.may("operate"))
    return await shown_to(core, caller, look)


async def shown_to(core: Core, caller: Caller, look: Look) -> Shown:
    """Return what a caller is shown of a look; made once for all who are shown the same."""
    audience = caller.may("operate"), caller.queues
    making = look.shown.get(audience)
    if making is None:
        making = look.shown[audience] = asyncio.ensure_future(_show(core, caller, look))
    found: Shown = await asyncio.shield(making)
    return found


async def _show(core: Core, caller: Caller, look: Look) -> Shown:
    made = await _overview(core, _seen_by(caller, look), operates=caller.may("operate"))
    lasting = (
        [
            (verdict.rule, verdict.queues)
            for verdict in (made.verdicts.flow, made.verdicts.execution, made.verdicts.liveness)
        ],
        made.alarms,
        made.queues,
        made.schedules,
        made.batches,
        made.limits,
        made.handlers,
        [(row.replica, row.silent, row.draining, row.deaf, row.in_flight) for row in made.replicas or ()],
    )
    digest = blake2b(msgspec.json.encode(lasting), digest_size=8).hexdigest()
    return Shown(made, digest, {alarm_key(alarm): alarm for alarm in made.alarms})


def alarm_key(alarm: Alarm) -> str:
    """Return a digest of what makes it the same alarm as before, whatever it counts now."""
    return _alarm_key(tuple(map(alarm.get, ALARM_NAMES)))


@lru_cache(maxsize=4096)
def _alarm_key(what: tuple[str | None, ...]) -> str:
    """Kept, because every look asks for those of all alarms, most of which were there before."""
    return blake2b(msgspec.json.encode(what), digest_size=8).hexdigest()


async def shared(core: Core, caller: Caller, what: str, make: Callable[[], Awaitable[T]]) -> T:
    """Return what `make` returns, made once per look at the tenant for all who may see the same, and so never older than the look.

    Raises Refusal (unavailable), Unavailable, and what `make` raises.
    """
    caller.require("read")
    look = await core.looks.at(caller.tenant_id, operates=caller.may("operate"))
    key = _for_all_like(caller, what)
    making: asyncio.Future[T] | None = look.shown.get(key)
    if making is None:
        making = asyncio.ensure_future(make())
        making.add_done_callback(lambda done: done.cancelled() or done.exception())  # everyone who asked may have gone
        if len(look.shown) < MAX_SHARED:
            look.shown[key] = making
    return await asyncio.shield(making)


def share_anew(core: Core, caller: Caller, what: str) -> None:
    """Have this made again for whoever asks next: the caller has been shown something newer, and must not go back in time."""
    look = core.looks.newest(caller.tenant_id)
    if look is not None:
        look.shown.pop(_for_all_like(caller, what), None)


def _for_all_like(caller: Caller, what: str) -> object:
    return what, caller.scope, caller.queues, caller.payloads


async def series(core: Core, caller: Caller, minutes: int) -> Series:
    """Return the last minutes, at most MAX_MINUTES, over all queues that the caller sees."""
    caller.require("read")
    sees = None if caller.queues is None else caller.sees
    return await minute_series.of_tenant(
        core.db.reads(caller.tenant_id), core.clock.now(), caller.tenant_id, minutes, sees
    )


async def queue_series(core: Core, caller: Caller, name: str, minutes: int) -> Series:
    """Return the last minutes, at most MAX_MINUTES, of a queue. Raises Refusal (queue_not_found)."""
    caller.require("read")
    reads = core.db.reads(caller.tenant_id)
    queue_id = await queues.id_of(reads, caller.tenant_id, name) if caller.sees(name) else None
    if queue_id is None:
        raise queue_not_found(name)
    return await minute_series.of_queue(reads, core.clock.now(), queue_id, name, minutes)


async def past(core: Core, caller: Caller, minutes: int) -> Series | None:
    """Return the last minutes that are over, over all queues that the caller sees; None if those are some of the tenant's, and more
    than MAX_CHARTED."""
    caller.require("read")
    if caller.queues is None:
        return await minute_series.of_past(core.db.reads(caller.tenant_id), core.clock.now(), caller.tenant_id, minutes)
    return await _of_queues(core, caller, minutes, lambda _: True)


async def handler_series(core: Core, caller: Caller, name: str, minutes: int) -> Series | None:
    """Return the last minutes of the queues of a handler that the caller sees; None if they are more than MAX_CHARTED."""
    caller.require("read")
    return await _of_queues(core, caller, minutes, lambda row: row.handler == name)


async def _of_queues(core: Core, caller: Caller, minutes: int, chosen: Callable[[QueueLook], bool]) -> Series | None:
    """Return the last minutes that are over of these of the caller's queues; None if they are more than MAX_CHARTED."""
    look = _seen_by(caller, await core.looks.at(caller.tenant_id, operates=caller.may("operate")))
    ids = [row.id for row in look.seen.queues if chosen(row)]
    if len(ids) > MAX_CHARTED:
        return None
    found = await minute_series.of_queues(core.db.reads(caller.tenant_id), core.clock.now(), ids, minutes)
    return msgspec.structs.replace(found, points=found.points[:-1])


async def sparklines(core: Core, caller: Caller, names: Sequence[str]) -> dict[str, Points]:
    """Return how many tasks were enqueued in these queues, by minute of the last hour."""
    caller.require("read")
    return await core.sparklines.of(caller.tenant_id, [name for name in names if caller.sees(name)])


def _seen_by(caller: Caller, look: Look) -> Look:
    """Return the part of a look that exists for a caller whose key is confined to queues."""
    if caller.queues is None:
        return look
    seen = look.seen
    shown = [n for n, row in enumerate(seen.queues) if caller.sees(row.queue)]
    own = [msgspec.structs.replace(seen.queues[n], tenant_limit=None) for n in shown]
    handlers = {row.handler for row in own}
    part = replace(
        seen,
        queues=own,
        schedules=[row for row in seen.schedules if caller.sees(row.queue)],
        batches=[row for row in seen.batches if caller.sees(row.queue)],
        handlers=[row for row in seen.handlers if row.name in handlers],
        limits=[],
        sources=[row for row in seen.sources if caller.sees(row.queue)],
    )
    return replace(look, seen=part, recent=[look.recent[n] for n in shown])


async def _overview(core: Core, look: Look, *, operates: bool) -> Overview:
    seen = look.seen
    pairs = list(zip(seen.queues, look.recent, strict=True))
    queues = [_queue(row, recent, look.window_minutes) async for row, recent in in_pieces(pairs)]
    facts = [_facts(row, recent) for row, recent in pairs]
    breakers_open = sum(handler.breaker == "open" for handler in seen.handlers)
    return Overview(
        tenant=seen.tenant,
        as_of=format_instant(seen.now),
        verdicts=Verdicts(
            verdicts.flow(facts),
            verdicts.execution(facts, breakers_open),
            verdicts.liveness(_fleet(core, look)),
        ),
        alarms=_alarms(core, look, operates=operates),
        totals=Counts(*(sum(getattr(row, state) for row in seen.queues) for state in TASK_COUNTS)),
        per_minute=_total(look),
        queues=queues,
        schedules=[
            ScheduleSeen(s.name, s.queue, s.paused, instant_text(s.next_nominal_at), s.overdue_seconds, s.missed)
            for s in seen.schedules
        ],
        batches=[
            BatchSeen(
                b.id,
                b.queue,
                b.sealed,
                format_instant(b.created_at),
                b.total,
                b.succeeded,
                b.dead,
                b.cancelled,
                round(100 * (b.succeeded + b.dead + b.cancelled) / b.total, 1) if b.total else None,
            )
            for b in seen.batches
        ],
        limits=list(_limits(look)),
        handlers=[
            HandlerSeen(h.name, h.enabled, h.breaker, h.parked_seconds, h.running, h.max_concurrency)
            for h in seen.handlers
        ],
        replicas=[_replica(row) for row in seen.replicas] if operates else UNSET,
        database=_database(look) if operates and seen.database is not None else UNSET,
    )


def _queue(row: QueueLook, recent: Recent, minutes: float) -> QueueSeen:
    outcomes = recent.succeeded + recent.retried + recent.dead
    return QueueSeen(
        queue=row.queue,
        paused=row.paused,
        paused_at=instant_text(row.paused_at),
        handler=row.handler,
        handler_enabled=row.handler_enabled,
        disabled_reason=row.disabled_reason,
        worker_asked_at=instant_text(row.worker_asked_at),
        tasks=Counts(row.scheduled, row.ready, row.running, row.dead),
        oldest_ready_age_seconds=row.oldest_ready_age_seconds,
        per_minute=_per_minute(recent, minutes),
        success_share=recent.succeeded / outcomes if outcomes else None,
        wait_seconds=Quantiles(*recent.wait),
        run_seconds=Quantiles(*recent.run),
        dead_lately=row.dead_lately,
        max_concurrency=row.max_concurrency,
        max_depth=row.max_depth,
    )


def _per_minute(recent: Recent, minutes: float) -> PerMinute:
    def rate(count: int) -> float:
        return round(count / minutes, 3) if count else 0.0  # most are zero, and rounding costs more than asking

    return PerMinute(
        rate(recent.enqueued),
        rate(recent.started),
        rate(recent.succeeded),
        rate(recent.dead),
        rate(recent.cancelled),
        rate(recent.retried),
    )


def _total(look: Look) -> PerMinute:
    names = PerMinute.__struct_fields__
    summed = {name: sum(getattr(one, name) for one in look.recent) for name in names}
    return _per_minute(Recent(**summed), look.window_minutes)


def _facts(row: QueueLook, recent: Recent) -> QueueFacts:
    return QueueFacts(
        name=row.queue,
        ready=row.ready,
        oldest_ready_seconds=row.oldest_ready_age_seconds,
        running=row.running,
        enqueued=recent.enqueued,
        started=recent.started,
        succeeded=recent.succeeded,
        retried=recent.retried,
        dead=recent.dead,
        paused=row.paused,
    )


def _fleet(core: Core, look: Look) -> FleetFacts:
    seen = look.seen
    heard = [row for row in seen.replicas if row.silent_seconds <= ALIVE_SECONDS and not row.draining]
    return FleetFacts(
        replicas=len(heard),
        engines=sum(row.roles != "api" for row in heard),
        silent=sum(row.silent_seconds > ALIVE_SECONDS for row in seen.replicas),
        deaf=sum(row.deaf for row in heard),
        lapsed_seconds=seen.longest_lapsed_seconds,
        due_seconds=seen.longest_due_seconds,
        late_schedules=sum(row.overdue_seconds > core.schedule_grace_seconds for row in seen.schedules),
        answer_seconds=look.answer_seconds,
    )


def _alarms(core: Core, look: Look, *, operates: bool) -> list[Alarm]:
    return tenant_alarms(look.seen, core.server_alarms, core.schedule_grace_seconds, operates=operates)


def _limits(look: Look) -> Iterator[LimitSeen]:
    seen = look.seen
    most = seen.queues[0].tenant_limit if seen.queues else None
    if most is not None:
        yield LimitSeen("tenant", seen.tenant, most, sum(row.running for row in seen.queues))
    for handler in seen.handlers:
        if handler.max_concurrency is not None:
            yield LimitSeen("handler", handler.name, handler.max_concurrency, handler.running)
    for limit in seen.limits:
        yield LimitSeen("named", limit.name, limit.max_concurrency, limit.used, limit.paused)


def _replica(row: ReplicaRow) -> ReplicaSeen:
    return ReplicaSeen(
        replica=row.name,
        roles=row.roles,
        version=row.version,
        started_at=format_instant(row.started_at),
        seen_at=format_instant(row.seen_at),
        silent=row.silent_seconds > ALIVE_SECONDS,
        draining=row.draining,
        deaf=row.deaf,
        in_flight=row.in_flight,
        max_in_flight=row.max_in_flight,
        database_connections=row.connections,
    )


def _database(look: Look) -> DatabaseSeen:
    row = look.seen.database
    assert row is not None
    return DatabaseSeen(
        server_version=row.server_version,
        schema_version=row.schema_version,
        size_bytes=row.size_bytes,
        connections=row.connections,
        max_connections=row.max_connections,
        oldest_xmin_age_seconds=row.oldest_xmin_age_seconds,
        answer_seconds=round(look.answer_seconds, 4),
    )
