"""The hot statements: one autocommitted round trip per group. The SQL is in sql/functions."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

import asyncpg
import msgspec

from app.domain.errors import Refusal
from app.domain.options import Options, decode_options
from app.store.db import Reader
from app.store.statements import call, sql

Written = TypeVar("Written")


class Entry(NamedTuple):
    """A task to insert: the fields of sluice.entry_v1, in order."""

    task_id: str
    queue_id: int
    queue_version: int
    handler_id: int
    """The task's own handler; 0 for the queue's."""
    payload: bytes
    key: str | None
    fingerprint: bytes | None
    unique_key: str | None = None
    priority: int = 0
    run_at: datetime | None = None
    delay_seconds: float | None = None
    expires_at: datetime | None = None
    ttl_seconds: float | None = None
    max_attempts: int | None = None
    options: str | None = None
    """The document of what it carries; None for none."""


class Receipt(msgspec.Struct):
    """The result of an enqueue group; ordinals in `verdicts` count from 1, and an item without a verdict was created."""

    at: str
    verdicts: dict[int, list[str]] = {}
    """[verdict], or [verdict, id of the existing task]."""
    waiting: dict[int, str] = {}
    refused: bool = False
    """Whether an all-or-nothing group wrote nothing."""


_RECEIPT = msgspec.json.Decoder(Receipt)


COLLISIONS = 5
"""How often a group is repeated at once because another one took a unique key first."""
_ENQUEUE = {False: call("enqueue_v1", 2), True: call("enqueue_atomic_v1", 2)}
_ENQUEUE_BATCH = call("enqueue_v1", 3)
_ENQUEUE_PLAIN = call("enqueue_plain_v1", 5)
_FIND_KEY = sql("find_idempotency_key")
_TENANT = sql("find_tenant_of_task")
_HELD_LEASE = sql("read_lease")
_READY_QUEUES = sql("find_ready_queues")
_NOTE_WORKERS = sql("note_workers")
_LANE = sql("find_lane_of_task")
_LANES = call("ready_lanes_v1", 3)
_CLAIM = call("claim_v1", 7)
_RELEASE_CLAIM = call("release_claim_v1", 1)
_SETTLE = call("settle_v1", 1)
_RENEW = call("renew_v1", 3)
_EXTEND_LEASE = call("extend_lease_v1", 4)
_FATE_OF_LEASE = call("fate_of_lease_v1", 2)
_REAP = call("reap_v1", 2)
_PROMOTE = call("promote_v1", 1)
_EXPIRE = call("expire_v1", 1)
_CANCEL = call("cancel_v1", 3)
_RETRY = call("retry_v1", 2)
_UPDATE_TASK = call("update_task_v1", 8)


async def enqueue(
    db: Reader, group_id: str, entries: Sequence[Entry], *, atomic: bool = False, batch_id: str | None = None
) -> Receipt:
    """Insert a group; with the id of a committed group, only return its receipt. `atomic`: all or nothing. Created tasks join the
    batch; if it takes no more, the whole group is `batch_sealed`.

    `entries` are in the order of `lock_order`. Raises Refusal (unavailable) if others were first each time, Unavailable.
    """
    return await despite_collisions(partial(_enqueue, db, group_id, entries, atomic, batch_id))


async def despite_collisions(write: Callable[[], Awaitable[Written]]) -> Written:
    """Run a write that conflicts with another over a unique key again. It has written nothing, and then finds the other task.

    Raises Refusal (unavailable) if others were first each time, and what `write` raises.
    """
    for _ in range(COLLISIONS):
        try:
            return await write()
        except (asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError):
            continue
    try:
        return await write()
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "tasks_unique_key":
            raise
        raise Refusal(
            "unavailable", "too many requests use the same unique_key; try again", retry_after_seconds=1
        ) from error


def lock_order(entries: Sequence[Entry]) -> Sequence[Entry]:
    """Return the entries in the order in which all groups insert unique keys, so that two of them never wait for each other."""
    if not any(entry.unique_key for entry in entries):
        return entries
    return sorted(entries, key=lambda entry: (entry.unique_key is not None, entry.queue_id, entry.unique_key or ""))


async def _enqueue(db: Reader, group_id: str, entries: Sequence[Entry], atomic: bool, batch_id: str | None) -> Receipt:
    if batch_id is not None:
        receipt = await db.fetchval(_ENQUEUE_BATCH, group_id, entries, batch_id)
    elif not atomic and (plain := _plain(entries)) is not None:
        receipt = await db.fetchval(_ENQUEUE_PLAIN, group_id, *plain)
    else:
        receipt = await db.fetchval(_ENQUEUE[atomic], group_id, entries)
    return _RECEIPT.decode(receipt)


def _plain(entries: Sequence[Entry]) -> tuple[int, int, Sequence[str], Sequence[bytes]] | None:
    """Return what enqueue_plain_v1 takes if all entries are of one queue and have nothing but a payload, None otherwise."""
    first = entries[0]
    if first != Entry(first.task_id, first.queue_id, first.queue_version, 0, first.payload, None, None):
        return None
    ids, queues, versions, handlers, payloads, *rest = zip(*entries, strict=True)
    same = zip((queues, versions, handlers, *rest), first[1:4] + first[5:], strict=True)
    if any(column.count(value) < len(entries) for column, value in same):
        return None
    return first.queue_id, first.queue_version, ids, payloads


async def knows_key(db: Reader, queue_id: int, key: str) -> bool:
    """Return whether an idempotency key of the queue is in force."""
    rows = await db.fetch(
        _FIND_KEY,
        queue_id,
        key,
    )
    return bool(rows)


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


class Claim(msgspec.Struct):
    """What a claim got of one lane, and why it got no more."""

    count: int
    verdict: str
    queue_version: int
    handler_id: int
    """0 for none, as the versions of what there is not."""
    handler_version: int
    full_at: str
    """The level of the limit that left less room than wanted: tenant, handler or queue."""
    lapsed: int | None
    """The tenant, if its expired leases block the claim."""
    limited: bool
    """Whether the lane is under any limit."""
    priority: int | None
    since: datetime | None
    """After a slow scan, with `priority`, where the next claim may start (LaneWant)."""
    tasks: list[Claimed] = []
    """Highest priority first, then oldest."""


_VERDICTS = msgspec.json.Decoder(list[Claim])


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
    rows.sort(key=itemgetter(0))
    taken = iter(rows)
    claims = _VERDICTS.decode(last["lanes"])
    for claim in claims:
        claim.tasks = [
            Claimed(
                str(task_id), str(token), until, run_at, number, attempt, payload, decode_options(options), created_at,
                batch_id and str(batch_id),
            )
            for _, task_id, token, until, run_at, number, attempt, payload, options, created_at, batch_id, _
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


async def settle(db: Reader, outcomes: Sequence[AttemptEnd]) -> dict[str, str]:
    """Write outcomes; return token -> applied | repeat | stale | unknown.

    Of several outcomes under one token the first counts, but a hold, which settles nothing, gives way to any other: a handler may
    complete its task while its answer is still being written.
    """
    counting: dict[str, AttemptEnd] = {}
    for outcome in outcomes:
        first = counting.setdefault(outcome.token, outcome)
        if first is not outcome and first.kind == "hold":
            counting[outcome.token] = outcome
    rows = await db.fetch(_SETTLE, list(counting.values()))
    return {str(token): verdict for token, verdict in rows}


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
    dead: bool
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


async def reap(db: Reader, limit: int, tenant_id: int | None = None) -> Reap:
    """End attempts whose lease has expired, of one tenant or of all."""
    *rows, last = await db.fetch(_REAP, limit, tenant_id)
    return Reap([Reaped(str(r[0]), *tuple(r)[1:-2]) for r in rows], _until(last))


@dataclass(frozen=True, slots=True)
class Due:
    """What a time-driven statement moved, and seconds until the next row is due (None: nothing is waiting)."""

    moved: int
    lanes: list[tuple[int, int]]
    next_seconds: float | None


async def promote(db: Reader, limit: int) -> Due:
    *lanes, last = await db.fetch(_PROMOTE, limit)
    return Due(last["moved"], [(r["queue_id"], r["lane"]) for r in lanes], _until(last))


async def expire(db: Reader, limit: int) -> tuple[Due, dict[int, int]]:
    """Also queue id -> how many tasks ended."""
    *queues, last = await db.fetch(_EXPIRE, limit)
    return Due(last["ended"], [], _until(last)), {r["queue_id"]: r["ended"] for r in queues}


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


async def cancel(db: Reader, tenant_id: int, task_ids: Sequence[str], reason: str) -> list[Cancelled]:
    """Cancel those of these tasks that are live; ids that are not returned were not."""
    rows = await db.fetch(_CANCEL, tenant_id, list(task_ids), reason)
    return [Cancelled(str(r[0]), r[1], None if r[2] is None else str(r[2]), *r[3:]) for r in rows]


async def retry(db: Reader, tenant_id: int, task_id: str) -> str:
    """Return moved | unchanged | running | ended | gone | orphaned | held."""
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
    headers_were: str,
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
        headers_were,
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
