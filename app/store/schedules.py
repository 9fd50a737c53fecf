"""Schedules: read what decisions depend on, and write what was decided."""

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Select, Update, bindparam, exists, func, null, select, update
from sqlalchemy.dialects.postgresql import insert as insert_into

from app.domain.confinement import like_patterns
from app.domain.options import decode_options, encode_options
from app.domain.schedules.firing import Runs
from app.store import locks, queue_names
from app.store.contents import recoded
from app.store.db import Reader
from app.store.numbers import Lock
from app.store.queues import add_lane
from app.store.statements import Query, bound, call, sql
from app.store.tables import queues, schedules
from app.store.vault import Vault, VaultError
from app.store.views import PAGE_BYTES


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """What decisions about a schedule depend on. `version` and `seq` tell whether it is still current."""

    id: int
    tenant_id: int
    tenant: str
    name: str
    version: int
    seq: int
    paused: bool
    deleted: bool
    next_nominal_at: datetime | None
    runs_made: int
    failures: int
    queue_id: int
    handler_id: int
    now: datetime
    """The database's time when this was read."""
    runs: Runs
    newest_id: str | None
    """The ledger's newest row, if it holds times without a run under this definition."""
    newest_outcome: str | None
    newest_until: datetime | None
    """The last nominal time in the ledger; after `now` if the database's clock went back, for example in a failover."""

    @property
    def settled_until(self) -> datetime:
        """Nominal times up to here have passed or are in the ledger."""
        return self.now if self.newest_until is None else max(self.now, self.newest_until)

    @classmethod
    def new(cls, tenant_id: int, tenant: str, name: str, now: datetime) -> "ScheduleState":
        """Return the state of a schedule that has no row yet."""
        return cls(0, tenant_id, tenant, name, 1, 0, False, False, None, 0, 0, 0, 0, now, Runs(), None, None, None)


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """A schedule to show. `definition` is JSON without the payload, and without that of `on_complete` if it is encrypted."""

    id: int
    tenant_id: int
    name: str
    definition: str
    payload: bytes
    options: str | None
    then_payload: bytes | None
    then_sealed_for: str | None
    etag: str
    owner: str | None
    paused: bool
    paused_at: datetime | None
    paused_reason: str | None
    next_nominal_at: datetime | None
    runs: int
    """Starts that counted against max_runs."""
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a definition."""

    queue_id: int
    handler_id: int
    definition: str
    payload: bytes
    priority: int
    options: str | None
    max_attempts: int | None
    then_queue_id: int | None
    then_digest: bytes | None
    then_payload: bytes | None
    then_sealed_for: str | None
    etag: str


@dataclass(frozen=True, slots=True)
class ScheduleHealth:
    tenant: str
    name: str
    paused: bool
    overdue_seconds: float
    missed: int
    next_nominal_at: datetime | None


_NOW = func.clock_timestamp()
_ALIVE = schedules.c.deleted_at.is_(None)
_THIS = schedules.c.id == bindparam("schedule_id")
_OF_TENANT = schedules.c.tenant_id == bindparam("tenant_id")
_NAMED = schedules.c.name == bindparam("name")
_BY_NAME = schedules.c.name.collate("C")
_COLUMNS = tuple(field.name for field in fields(Columns))
_SHOWN = schedules.c[*(field.name for field in fields(ScheduleRow))]


def _change() -> Update:
    return update(schedules).where(_THIS).values(version=schedules.c.version + 1)


def _page(*conditions: ColumnElement[bool]) -> Select[Any]:
    """Rows up to PAGE_BYTES of payloads, the one that exceeds it included; `found` is how many there were."""
    rows = (
        select(*_SHOWN)
        .where(_OF_TENANT, _ALIVE, bindparam("after") < _BY_NAME, *conditions)
        .order_by(_BY_NAME)
        .limit(bindparam("most"))
        .subquery("f")
    )
    sized = select(
        rows,
        func.count().over().label("found"),
        func.sum(func.octet_length(rows.c.payload))
        .over(order_by=rows.c.name.collate("C"), rows=(None, -1))
        .label("bytes_before"),
    ).subquery("s")
    enough = func.coalesce(sized.c.bytes_before, 0) < PAGE_BYTES
    return select(sized).where(enough).order_by(sized.c.name.collate("C"))


_FIND = Query(select(*_SHOWN).where(_OF_TENANT, _NAMED, _ALIVE))
_PAGE = Query(_page())
_PAGE_WITHIN = Query(_page(exists(select(queues.c.id).where(queues.c.id == schedules.c.queue_id, queue_names.WITHIN))))
_DEFINITIONS = Query(
    select(*schedules.c["id", "version", "definition"]).where(schedules.c.id == func.any(bindparam("ids")))
)
_LOCK = Query(select(schedules.c.id).where(_OF_TENANT, _NAMED, _ALIVE).with_for_update(key_share=True))
_LOCK_STATE = Query(
    select(schedules.c.id)
    .where(_THIS, schedules.c.version == bindparam("version"), schedules.c.seq == bindparam("seq"))
    .with_for_update(key_share=True)
)
_INSERT = Query(
    insert_into(schedules)
    .values(
        created_at=bindparam("at"),
        updated_at=bindparam("at"),
        **bound("tenant_id", "name", "next_nominal_at", "look_at", *_COLUMNS),
    )
    .on_conflict_do_nothing(index_elements=["tenant_id", "name"], index_where=_ALIVE)
    .returning(schedules.c.id)
)
_REPLACE = Query(_change().values(updated_at=bindparam("at"), **bound(*_COLUMNS)))
_SET_OWNER = Query(update(schedules).where(_OF_TENANT, _NAMED, _ALIVE).values(**bound("owner")))
_PAUSE = Query(_change().values(paused=True, paused_at=_NOW, failures=0, **bound("paused_reason")))
_RESUME = Query(_change().values(paused=False, paused_at=null(), failures=0, paused_reason=null()))
_LOCK_OF_QUEUE = Query(
    select(schedules.c.id)
    .where(schedules.c.queue_id == bindparam("queue_id"), _ALIVE)
    .order_by(schedules.c.id)
    .with_for_update(key_share=True)
)
_CONTENT = Query(select(*schedules.c["payload", "options"]).where(_THIS))
_SET_CONTENT = Query(update(schedules).where(_THIS).values(**bound("payload", "options")))
_DELETE = Query(_change().values(deleted_at=_NOW, next_nominal_at=null(), look_at=null()))

_STATES = sql("show_schedule_states")
_DUE = sql("find_due_schedules")
_NEXT_LOOK = sql("find_next_look")
_APPLY = call("apply_schedules_v1", 3)
_CLOCK = sql("read_clock")
_ARE_AS_READ = sql("compare_definitions")
_WAITING_PAYLOADS = sql("find_waiting_payloads")
_SET_WAITING_PAYLOAD = sql("set_waiting_payload")
_HEALTH = sql("show_schedule_health")
_TROUBLED = sql("show_troubled_schedules")


async def due(db: Reader, limit: int) -> list[int]:
    """Return schedules that are due: one of each tenant, then another of each."""
    return [row[0] for row in await db.fetch(_DUE, limit)]


async def next_look_seconds(db: Reader) -> float | None:
    seconds: float | None = await db.fetchval(_NEXT_LOOK)
    return seconds


async def states(reader: Reader, ids: Sequence[int]) -> list[ScheduleState]:
    return [_state(row) for row in await reader.fetch(_STATES, list(ids))]


def _state(row: Any) -> ScheduleState:
    given = dict(row.items())
    runs = Runs(given.pop("running"), given.pop("catching_up"), given.pop("waiting"))
    return ScheduleState(runs=runs, **given)


async def definitions(reader: Reader, ids: Sequence[int]) -> list[tuple[int, int, str]]:
    """Return (id, version, definition without its payload)."""
    rows = await _DEFINITIONS.fetch(reader, ids=ids)
    return [(row[0], row[1], row[2]) for row in rows]


async def apply(reader: Reader, changes: Sequence[dict[str, Any]], replica: str, *, wait: bool) -> set[int]:
    """Write decisions; return the schedules for which they were still current."""
    document = msgspec.json.encode(changes).decode()
    return {row[0] for row in await reader.fetch(_APPLY, document, replica, wait)}


async def find(reader: Reader, tenant_id: int, name: str) -> ScheduleRow | None:
    row = await _FIND.fetchrow(reader, tenant_id=tenant_id, name=name)
    return ScheduleRow(**row) if row else None


async def list_page(
    db: Reader, tenant_id: int, after: str | None, limit: int, within: Sequence[str] | None = None
) -> tuple[list[ScheduleRow], bool]:
    """Return rows by name, after the name `after`, up to PAGE_BYTES, and whether there are more; with `within`, those on queues
    whose names match one of the patterns."""
    page = {"tenant_id": tenant_id, "after": after or "", "most": limit + 1}
    if within is None:
        found_rows = await _PAGE.fetch(db, **page)
    else:
        found_rows = await _PAGE_WITHIN.fetch(db, **page, patterns=like_patterns(within))
    rows = [dict(row.items()) for row in found_rows]
    found = rows[0]["found"] if rows else 0
    for row in rows:
        del row["found"], row["bytes_before"]
    shown = [ScheduleRow(**row) for row in rows[:limit]]
    return shown, found > len(shown)


async def lock(connection: Reader, tenant_id: int, name: str) -> int | None:
    """Lock a schedule until the transaction ends. Read what decisions depend on in later statements."""
    schedule_id: int | None = await _LOCK.fetchval(connection, tenant_id=tenant_id, name=name)
    return schedule_id


async def lock_state(connection: Reader, state: ScheduleState) -> bool:
    """Return whether the schedule is as it was read; it stays so until the transaction ends."""
    found = await _LOCK_STATE.fetch(connection, schedule_id=state.id, version=state.version, seq=state.seq)
    return bool(found)


async def now(reader: Reader) -> datetime:
    found: datetime = await reader.fetchval(_CLOCK)
    return found


async def hold_named(connection: Reader, queues: Sequence[tuple[int, int]], handler_id: int) -> bool:
    """Return whether queues, as (id, version), and the handler (0: none) are as the caller read them; they stay so until the
    transaction ends."""
    if handler_id:
        await locks.share(connection, Lock.HANDLER, handler_id)
    for queue_id, _ in sorted(queues):
        await locks.share(connection, Lock.QUEUE, queue_id)
    held: bool = await connection.fetchval(
        _ARE_AS_READ, [queue_id for queue_id, _ in queues], [version for _, version in queues], handler_id
    )
    return held


async def insert(
    connection: Reader,
    tenant_id: int,
    name: str,
    columns: Columns,
    at: datetime,
    next_nominal_at: datetime | None,
    look_at: datetime | None,
) -> bool:
    """Write a definition; return whether it is new."""
    made = await _INSERT.fetchval(
        connection,
        tenant_id=tenant_id,
        name=name,
        at=at,
        next_nominal_at=next_nominal_at,
        look_at=look_at,
        **asdict(columns),
    )
    await _add_lane(connection, columns)
    return made is not None


async def replace(connection: Reader, schedule_id: int, columns: Columns, at: datetime) -> None:
    await _REPLACE.fetch(connection, schedule_id=schedule_id, at=at, **asdict(columns))
    await _add_lane(connection, columns)


async def _add_lane(connection: Reader, columns: Columns) -> None:
    if columns.handler_id:
        await add_lane(connection, columns.queue_id, columns.handler_id)


async def set_owner(connection: Reader, tenant_id: int, name: str, owner: str) -> None:
    await _SET_OWNER.fetch(connection, tenant_id=tenant_id, name=name, owner=owner)


async def recode(connection: Reader, vault: Vault, tenant_id: int, queue_id: int, *, encrypt: bool) -> None:
    """Rewrite the payloads of a queue's schedules, and of starts that wait, when the queue begins or ceases to encrypt. The
    queue is locked. One that cannot be decrypted stays as it is."""
    for locked in await _LOCK_OF_QUEUE.fetch(connection, queue_id=queue_id):
        schedule_id = locked[0]
        [row] = await _CONTENT.fetch(connection, schedule_id=schedule_id)
        before = decode_options(row["options"])
        if before.sealed == encrypt:
            continue
        sealed_for = str(uuid.uuid4()) if encrypt else None
        after = msgspec.structs.replace(before, sealed=encrypt, sealed_for=sealed_for)
        waiting = await connection.fetch(_WAITING_PAYLOADS, schedule_id)
        try:
            payload = recoded(vault, tenant_id, before, after, row["payload"])
            own = [(run["id"], recoded(vault, tenant_id, before, after, run["payload"])) for run in waiting]
        except VaultError:
            continue
        for run_id, run_payload in own:
            await connection.fetch(_SET_WAITING_PAYLOAD, run_id, run_payload)
        options = encode_options(after)
        await _SET_CONTENT.fetch(connection, schedule_id=schedule_id, payload=payload, options=options)


async def set_paused(connection: Reader, schedule_id: int, reason: str | None, *, paused: bool) -> None:
    if paused:
        await _PAUSE.fetch(connection, schedule_id=schedule_id, paused_reason=reason)
    else:
        await _RESUME.fetch(connection, schedule_id=schedule_id)


async def mark_deleted(connection: Reader, schedule_id: int) -> None:
    await _DELETE.fetch(connection, schedule_id=schedule_id)


async def health(db: Reader, limit: int) -> list[ScheduleHealth]:
    """Return all schedules; above `limit`, only those that are overdue or have missed times, found by their indexes."""
    rows = await db.fetch(_HEALTH, limit + 1)
    if len(rows) > limit:
        rows = await db.fetch(_TROUBLED, limit)
    return [ScheduleHealth(**row) for row in rows]
