"""What `why` reads: the facts about one task or about the heads of a queue, and then the evidence that its blockers ask for.

Two statements, whatever blocks: the second reads only what the blockers of the first need.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import UNSET

from app.domain.breakers import Health
from app.domain.instants import format_instant
from app.domain.views import TaskView
from app.domain.waiting import WaitingFacts, WaitingFor
from app.domain.why import MAX_AHEAD, Bucket, Evidence, HoldingTask, at_of
from app.store.db import Reader
from app.store.statements import fill, part, sql
from app.store.vault import Vault
from app.store.views import LIVE, ONE_TASK, facts_of, task_view

LATELY = timedelta(minutes=5)
"""Rates are those of the last so many full minutes and the current one."""
MAX_READY = 1_000_000
_OTHERS = part("running", row="r")


def _holders(source: str) -> str:
    return part("holders", source=source)


_EVIDENCE = sql(
    "explain_wait",
    of_tenant=_holders(f"sluice.tasks r where {_OTHERS} and r.tenant_id = $1"),
    of_queue=_holders(f"sluice.tasks r where {_OTHERS} and r.tenant_id = $1 and r.queue_id = $2"),
    of_handler=_holders(f"sluice.tasks r where {_OTHERS} and r.tenant_id = $1 and r.lease_handler_id = $10"),
    of_bucket=_holders(
        "sluice.holds o join sluice.tasks r on r.id = o.task_id"
        " where o.bucket_id = $11 and r.lease_token is not null and r.claims = o.claims"
    ),
)
_HEADS = fill(LIVE, payload="null::bytea", source=part("heads_of_queue"), where="true")
_QUEUE = sql("explain_queue")
_HOLDERS = msgspec.json.Decoder(list[dict[str, Any]])
_HEALTH = msgspec.json.Decoder(Health)
_PARKED = frozenset({WaitingFor.KEY_LIMIT, WaitingFor.LIMIT})
_ON_BUCKET = _PARKED | {WaitingFor.KEY_RATE, WaitingFor.LIMIT_RATE, WaitingFor.KEY_PAUSED, WaitingFor.ORDERING}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a task stands in line: its priority, then its run_at, then its id."""

    task_id: str | None
    priority: int
    run_at: datetime | None


@dataclass(frozen=True, slots=True)
class Flow:
    """What goes in and out of a queue."""

    now: datetime
    ready: int
    running: int
    starts_per_second: float
    ends_per_second: float
    enqueued_per_second: float
    next_run_at: datetime | None


async def find(
    db: Reader, vault: Vault, tenant_id: int, task_id: str
) -> tuple[TaskView, WaitingFacts | None, Place, datetime | None] | None:
    """Return a task, the facts about its waiting if it waits, its place, and when its lease was last renewed."""
    rows = await db.fetch(ONE_TASK, task_id, tenant_id, False)
    if not rows:
        return None
    row = rows[0]
    return task_view(vault, row), facts_of(row), _place(row), row["renewed_at"]


async def heads(db: Reader, tenant_id: int, queue_id: int) -> list[tuple[WaitingFacts, Place]]:
    """Return the facts about the tasks that come first; the last stands for any task."""
    found = []
    for row in await db.fetch(_HEADS, tenant_id, queue_id):
        facts = facts_of(row)
        assert facts is not None, "only ready tasks are looked at"
        found.append((facts, _place(row)))
    return found


def _place(row: Any) -> Place:
    return Place(None if row["id"] is None else str(row["id"]), row["priority"], row["run_at"])


async def flow_of(db: Reader, tenant_id: int, queue_id: int, now: datetime) -> Flow:
    since, seconds = _window(now)
    (row,) = await db.fetch(_QUEUE, tenant_id, queue_id, since, MAX_READY)
    return Flow(
        row["now"],
        row["ready"],
        row["running"],
        starts_per_second=row["started"] / seconds,
        ends_per_second=row["ended"] / seconds,
        enqueued_per_second=row["enqueued"] / seconds,
        next_run_at=row["next_run_at"],
    )


def _window(now: datetime) -> tuple[datetime, float]:
    since = now.replace(second=0, microsecond=0) - LATELY
    return since, (now - since).total_seconds()


async def evidence(
    db: Reader,
    tenant_id: int,
    facts: WaitingFacts,
    place: Place,
    codes: Collection[WaitingFor],
    now: datetime,
    last_error: str | None = None,
) -> Evidence:
    """Return what the explanations of these blockers need, but for definitions."""
    since, seconds = _window(now)
    parked = facts.parked if facts.parked is not None and facts.parked.code in codes else None
    on_bucket = parked if parked is not None and parked.code in _ON_BUCKET else None
    (row,) = await db.fetch(
        _EVIDENCE,
        tenant_id,
        facts.queue_id,
        facts.lane,
        facts.flow_id,
        place.priority,
        place.run_at,
        place.task_id if facts.due else None,
        WaitingFor.GLOBAL_LIMIT in codes,
        WaitingFor.QUEUE_LIMIT in codes,
        facts.handler_id if WaitingFor.HANDLER_LIMIT in codes else None,
        None if on_bucket is None else on_bucket.bucket,
        None if on_bucket is None else on_bucket.limit_id,
        MAX_AHEAD,
        since,
        facts.handler_id if WaitingFor.BREAKER_OPEN in codes else None,
        None if on_bucket is None else on_bucket.key,
    )
    holders = {
        code: _held(row[column])
        for code, column in (
            (WaitingFor.GLOBAL_LIMIT, "tenant_holders"),
            (WaitingFor.QUEUE_LIMIT, "queue_holders"),
            (WaitingFor.HANDLER_LIMIT, "handler_holders"),
        )
        if code in codes
    }
    if on_bucket is not None and on_bucket.code in _PARKED:
        holders[on_bucket.code] = _held(row["bucket_holders"])
    return Evidence(
        now=now,
        task_id=place.task_id,
        last_error=last_error,
        ahead=row["ahead"],
        top=row["top"],
        starts_per_second=row["started"] / seconds,
        engine_seen_at=row["engine_seen_at"],
        worker_asked_at=row["worker_asked_at"],
        health=None if row["health"] is None else _HEALTH.decode(row["health"]),
        bucket=Bucket(
            held=row["held"] or 0,
            max=row["max_concurrency"],
            paused_at=row["limit_paused_at"],
            keyed=bool(row["keyed"]) or row["kind"] == "queue_key",
            key_paused=bool(row["key_paused"]),
        ),
        first=_first(row, facts.queue),
        holders=holders,
    )


def _held(document: str | None) -> Sequence[HoldingTask]:
    """Return the tasks that hold a place. Times are those of the database, in its session's format."""
    return [
        HoldingTask(
            task=found["task"],
            queue=found["queue"],
            started_at=_text(found["started_at"]),
            replica=found["replica"] or UNSET,
            lease_expires_at=_text(found["lease_expires_at"]),
        )
        for found in _HOLDERS.decode(document or "[]")
    ]


def _text(instant: str | None) -> Any:
    return UNSET if instant is None else format_instant(datetime.fromisoformat(instant))


def _first(row: Any, queue: str) -> HoldingTask | None:
    if row["first_id"] is None:
        return None
    running = row["first_expires_at"] is not None
    return HoldingTask(
        task=str(row["first_id"]),
        queue=queue,
        started_at=at_of(row["first_started_at"]) if running else UNSET,
        replica=row["first_replica"] or UNSET if running else UNSET,
        lease_expires_at=at_of(row["first_expires_at"]),
    )
