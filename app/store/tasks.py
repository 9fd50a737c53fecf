"""Statements on stored tasks: one autocommitted round trip per group. The SQL is in sql/functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from app.domain.options import Options, decode_options
from app.store.callbacks import Told, decoded, untold
from app.store.db import Reader
from app.store.statements import call, sql

_TENANT = sql("find_tenant_of_task")
_HELD_LEASE = sql("read_lease")
_READY_QUEUES = sql("find_ready_queues")
_NOTE_WORKERS = sql("note_workers")
_LANE = sql("find_lane_of_task")
_LANES = call("ready_lanes_v1", 3)
_CLAIM = call("claim_v1", 7)
_RELEASE_CLAIM = call("release_claim_v1", 1)
_SETTLE = call("settle_v1", 1)
_SETTLE_CLAIM = call("settle_claim_v1", 7)
_RENEW = call("renew_v1", 3)
_EXTEND_LEASE = call("extend_lease_v1", 4)
_FATE_OF_LEASE = call("fate_of_lease_v1", 2)
_REAP = call("reap_v1", 2)
_PROMOTE = call("promote_v1", 1)
_EXPIRE = call("expire_v1", 1)
_CANCEL = call("cancel_v1", 3)
_RETRY = call("retry_v1", 2)
_UPDATE_TASK = call("update_task_v1", 8)


class LaneWant(NamedTuple):
    """How many tasks of a lane to claim: the fields of sluice.lane_v1, in order."""

    queue_id: int
    handler_id: int
    """The handler that the lane's tasks name themselves; 0 for the queue's."""
    want: int
    priority: int | None = None
    since: datetime | None = None
    """With `priority`: start there, and ignore what comes before it in the order of claiming."""


class Claimed(msgspec.Struct, frozen=True):
    """One leased task: the columns of claim_v1 after the first, in order."""

    task_id: str
    token: str
    lease_expires_at: datetime
    run_at: datetime
    number: int
    attempt: int
    payload: bytes
    options: Options
    created_at: datetime
    batch_id: str | None
    """Its batch, or the batch whose completion enqueued it."""


FLOWS = "flows"
"""The level of named and keyed limits and of rates. Other tasks of a lane may come that these do not block."""


class Claim(msgspec.Struct):
    """What a claim got of one lane, and why it got no more."""

    count: int
    verdict: str
    queue_version: int
    handler_id: int
    """0 for none, as the versions of what there is not."""
    handler_version: int
    full_at: str = ""
    """The level of the limit that left less room than wanted: tenant, handler, queue or flows."""
    lapsed: int | None = None
    """The tenant, if its expired leases block the claim."""
    limited: bool = False
    """Whether the lane is under any limit."""
    priority: int | None = None
    since: datetime | None = None
    """After a slow scan, with `priority`, where the next claim may start (LaneWant)."""
    group: int | None = None
    """How many tasks the handler takes in one call; None: one."""
    forms_in: float | None = None
    """For how many seconds the next group may still wait for more tasks; with the verdict `forming`."""
    period: int | None = None
    """Of the handler's health; None without a breaker or an adaptive limit."""
    half_open: bool = False
    """Its breaker admits a single probe, so what was claimed is one."""
    opens_in: float | None = None
    """If the handler is parked, for how many seconds."""
    wait_seconds: float | None = None
    """When full at flows: until a rate of the tenant admits something again."""
    opened: list[tuple[int, int]] = []
    """Lanes of the tenant that may go on now, because this claim found what they waited for."""
    tasks: list[Claimed] = []
    """Highest priority first, then oldest."""


_VERDICTS = msgspec.json.Decoder(list[Claim])
_SETTLED = msgspec.json.Decoder(dict[str, str])


async def claim(
    db: Reader,
    lanes: Sequence[LaneWant],
    *,
    owner: str | None,
    replica: str,
    claim_id: str,
    not_after: datetime,
    lease_seconds: float,
    pull: bool = False,
) -> list[Claim]:
    """Lease ready tasks of several lanes; return one Claim per lane, in order."""
    *rows, last = await db.fetch(_CLAIM, lanes, owner, replica, claim_id, not_after, lease_seconds, pull)
    return _claims(rows, last["lanes"])


def _claims(rows: list[Any], lanes: str) -> list[Claim]:
    rows.sort(key=itemgetter(0))
    taken = iter(rows)
    claims = _VERDICTS.decode(lanes)
    for claim in claims:
        claim.tasks = [
            Claimed(
                str(task_id), str(token), until, run_at, number, attempt, payload, decode_options(options), created_at,
                batch_id and str(batch_id),
            )
            for _, task_id, token, until, run_at, number, attempt, payload, options, created_at, batch_id, *_
            in islice(taken, claim.count)
        ]  # fmt: skip
    return claims


async def release_claim(db: Reader, claim_id: str) -> list[int]:
    """Release everything taken by a claim whose answer never came; return the queues of those tasks."""
    return [row[0] for row in await db.fetch(_RELEASE_CLAIM, claim_id)]


class AttemptEnd(NamedTuple):
    """An attempt's outcome, with the only token that may write it: the fields of sluice.outcome_v1, in order."""

    task_id: str
    token: str
    kind: str
    """succeeded | retry | dead | refund | hold"""
    outcome: str
    reason: str | None = None
    delay_seconds: float = 0.0
    status: int | None = None
    message: str | None = None
    excerpt: str | None = None
    result: bytes | None = None
    result_format: str | None = None
    result_truncated: bool = False
    trace_id: str | None = None


async def settle(db: Reader, outcomes: Sequence[AttemptEnd], *, told: Told = untold) -> dict[str, str]:
    """Write outcomes; return token -> applied | repeat | stale | unknown. `told` hears of the callbacks of tasks that ended.

    Of several outcomes under one token the first counts, but a hold, which settles nothing, gives way to any other: a handler may
    complete its task while its answer is still being written.
    """
    rows = await db.fetch(_SETTLE, _counting(outcomes))
    if rows and rows[0][0] is None:
        told(decoded(rows.pop(0)[1]))
    return {str(token): verdict for token, verdict in rows}


async def settle_and_claim(
    db: Reader,
    outcomes: Sequence[AttemptEnd],
    lanes: Sequence[LaneWant],
    *,
    owner: str,
    replica: str,
    claim_id: str,
    not_after: datetime,
    lease_seconds: float,
    told: Told = untold,
) -> tuple[dict[str, str], list[Claim]]:
    """Write outcomes as `settle` does, and claim as `claim` does, in one transaction; return what both return."""
    *rows, last = await db.fetch(
        _SETTLE_CLAIM, _counting(outcomes), lanes, owner, replica, claim_id, not_after, lease_seconds
    )
    verdicts = _SETTLED.decode(last["settled"])
    if called := verdicts.pop("", None):
        told(decoded(called))
    return verdicts, _claims(rows, last["lanes"])


def _counting(outcomes: Sequence[AttemptEnd]) -> list[AttemptEnd]:
    """Return the outcome that counts of each token."""
    counting: dict[str, AttemptEnd] = {}
    for outcome in outcomes:
        first = counting.setdefault(outcome.token, outcome)
        if first is not outcome and first.kind == "hold":
            counting[outcome.token] = outcome
    return list(counting.values())


async def renew(db: Reader, held: Sequence[tuple[str, str]], lease_seconds: float) -> set[str]:
    """Extend leases given as (task id, token); return the tokens that still hold."""
    rows = await db.fetch(_RENEW, [t for t, _ in held], [k for _, k in held], lease_seconds)
    return {str(row[0]) for row in rows}


async def extend_lease(db: Reader, task_id: str, token: str, seconds: float, progress: str | None) -> datetime | None:
    """Return the lease's new end; None if the token no longer holds it."""
    ends: datetime | None = await db.fetchval(_EXTEND_LEASE, task_id, token, seconds, progress)
    return ends


async def fate_of_lease(db: Reader, task_id: str, token: str) -> str:
    """Return held | settled | cancelled | lost | unknown."""
    fate: str = await db.fetchval(_FATE_OF_LEASE, task_id, token)
    return fate


async def tenant_of(db: Reader, task_id: str) -> int | None:
    """Return the tenant of a task, live or ended; None if it does not exist."""
    tenant_id: int | None = await db.fetchval(
        _TENANT,
        task_id,
    )
    return tenant_id


@dataclass(frozen=True, slots=True)
class HeldLease:
    """What is needed to validate and count a call under a lease."""

    tenant_id: int
    queue_id: int
    lane: int
    handler_id: int
    """The handler that holds the lease; 0 for a worker."""
    attempt: int
    started_at: datetime
    called: bool
    """A replica is still calling a handler under it."""
    options: Options
    batch_id: str | None
    tenant: str
    queue: str


async def held_lease(db: Reader, task_id: str, token: str) -> HeldLease | None:
    rows = await db.fetch(
        _HELD_LEASE,
        task_id,
        token,
    )
    if not rows:
        return None
    given = dict(rows[0].items())
    batch_id = given["batch_id"]
    return HeldLease(**{**given, "options": decode_options(given["options"]), "batch_id": batch_id and str(batch_id)})


async def ready_queues(db: Reader, queue_ids: Sequence[int]) -> list[int]:
    return [row[0] for row in await db.fetch(_READY_QUEUES, list(queue_ids))]


async def note_workers(db: Reader, queue_ids: Sequence[int]) -> None:
    """Record that workers ask for tasks of these queues now."""
    await db.fetch(
        _NOTE_WORKERS,
        list(queue_ids),
    )


@dataclass(frozen=True, slots=True)
class Reaped:
    task_id: str
    tenant_id: int
    queue_id: int
    lane: int
    handler_id: int
    """0 for a pulled task."""
    reason: str | None
    """Why it is dead; None: it is ready again."""
    called: bool
    """A replica was calling a handler under this lease; otherwise a worker or a holding handler had it."""
    tenant: str
    queue: str
    outcome: str
    ran_seconds: float


@dataclass(frozen=True, slots=True)
class Reap:
    """Attempts that were ended, and seconds until the next lease expires (None: none will, or only one tenant was checked)."""

    reaped: list[Reaped]
    next_seconds: float | None


async def reap(db: Reader, limit: int, tenant_id: int | None = None, *, told: Told = untold) -> Reap:
    """End attempts whose lease has expired, of one tenant or of all. `told` hears of the callbacks of tasks that are dead."""
    *rows, last = await db.fetch(_REAP, limit, tenant_id)
    _tell(told, last["callbacks"])
    return Reap([Reaped(str(r[0]), *tuple(r)[1:-3]) for r in rows], _until(last))


@dataclass(frozen=True, slots=True)
class Due:
    """What a time-driven statement moved, and seconds until the next row is due (None: nothing is waiting)."""

    moved: int
    lanes: list[tuple[int, int]]
    next_seconds: float | None


async def promote(db: Reader, limit: int) -> Due:
    *lanes, last = await db.fetch(_PROMOTE, limit)
    return Due(last["moved"], [(r["queue_id"], r["lane"]) for r in lanes], _until(last))


async def expire(db: Reader, limit: int, *, told: Told = untold) -> tuple[Due, dict[int, int]]:
    """Also queue id -> how many tasks ended. `told` hears of their callbacks."""
    *queues, last = await db.fetch(_EXPIRE, limit)
    _tell(told, last["callbacks"])
    return Due(last["ended"], [], _until(last)), {r["queue_id"]: r["ended"] for r in queues}


def _tell(told: Told, documents: Sequence[str | None] | None) -> None:
    for document in documents or ():
        if document is not None:
            told(decoded(document))


def _until(row: Any) -> float | None:
    return None if row["next_at"] is None else max(0.0, (row["next_at"] - row["at"]).total_seconds())


class Cancelled(msgspec.Struct):
    task_id: str
    queue_id: int
    owner: str | None
    """The replica that was calling its handler."""
    tenant: str
    queue: str
    outcome: str | None
    """Of the running attempt; None if there was none."""
    ran_seconds: float | None
    tenant_id: int
    handler_id: int
    """The handler that held it; 0 for a worker."""


async def cancel(
    db: Reader, tenant_id: int, task_ids: Sequence[str], reason: str, *, told: Told = untold
) -> list[Cancelled]:
    """Cancel those of these tasks that are live; ids that are not returned were not. `told` hears of their callbacks.

    Raises Held.
    """
    rows = await db.fetch(_CANCEL, tenant_id, list(task_ids), reason)
    if rows and rows[-1]["task_id"] is None:
        told(decoded(rows.pop()["callbacks"]))
    return [Cancelled(str(r[0]), r[1], None if r[2] is None else str(r[2]), *r[3:-1]) for r in rows]


async def retry(db: Reader, tenant_id: int, task_id: str) -> str:
    """Return moved | unchanged | running | ended | gone | orphaned | held. Raises Held."""
    verdict: str = await db.fetchval(_RETRY, tenant_id, task_id)
    return verdict


async def update(
    db: Reader,
    tenant_id: int,
    task_id: str,
    queue_version: int,
    columns: str,
    options: str,
    payload: bytes | None,
    handler_id: int | None,
    options_were: str,
) -> str:
    """Update a task; return done | running | ended | gone | again | changed. `columns` and `options` are JSON of the changes."""
    verdict: str = await db.fetchval(
        _UPDATE_TASK,
        tenant_id,
        task_id,
        queue_version,
        columns,
        options,
        payload,
        handler_id,
        options_were,
    )
    return verdict


async def lane_of(db: Reader, task_id: str) -> tuple[int, int] | None:
    rows = await db.fetch(_LANE, task_id)
    return (rows[0][0], rows[0][1]) if rows else None


FIRST_LANE = (0, -1)
"""Before every lane."""


@dataclass(frozen=True, slots=True)
class ReadyLane:
    """A lane with ready tasks."""

    queue_id: int
    handler_id: int
    tenant_id: int
    priority: int
    run_at: datetime
    """With `priority`, where the first ready task is in the order of claiming."""
    open: bool
    """Its queue is not paused, and its handler is enabled."""


async def ready_lanes(db: Reader, after: tuple[int, int], limit: int) -> list[ReadyLane]:
    """Return up to `limit` lanes with ready tasks, in the order of their keys."""
    return [ReadyLane(*row) for row in await db.fetch(_LANES, *after, limit)]
