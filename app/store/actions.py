"""Actions on all tasks that match a filter: what is asked, what is listed, what has been done. act_v1 says how."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from app.domain.actions import ActionView, Kind, problem_of, view_of
from app.domain.confinement import like_patterns
from app.store.callbacks import Called, Told, untold
from app.store.db import Reader
from app.store.statements import call, sql
from app.store.task_lists import LAST, TaskQuery
from app.store.tasks import Cancelled

DUE = 100
_ACT = call("act_v1", 2)
_ADD = sql("add_action")
_READ = sql("read_action")
_SHOW = sql("show_actions")
_MOVES = sql("show_moves")
_RECENT_PURGE = sql("find_recent_purge")
_LIST = sql("list_action_tasks")
_CANCEL = sql("cancel_action")
_NEXT = sql("find_next_action_task")
_FAIL = sql("fail_action_task")
_KEYED = sql("find_keyed_action")
_DUE = sql("find_due_actions")
_ERRORS = sql("show_last_errors")


class Search(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which tasks an action looks for: its filter, with names resolved when it was asked for."""

    queue_ids: list[int] | None = None
    state: str | None = None
    reason: str | None = None
    type: str | None = None
    tag: str | None = None
    handler_ids: list[int] | None = None
    correlation_id: str | None = None
    schedule: str | None = None
    batch: str | None = None
    ended_from: datetime | None = None
    ended_to: datetime | None = None
    error: str | None = None
    within: str | None = None
    to: int | None = None
    """Where `move` sends tasks; None: each back to where it came from. Not a condition."""

    def query(self, tenant_id: int, after: str, at: datetime) -> TaskQuery:
        """Return the search from an id on, for tasks that were there at `at`."""
        given = {name: getattr(self, name) for name in self.__struct_fields__ if name not in ("error", "to")}
        return TaskQuery(
            tenant_id=tenant_id,
            before=after,
            limit=0,
            include_payload=False,
            ascending=True,
            at=at,
            failed=self.error is not None,
            **given,
        )


_SEARCH = msgspec.json.Decoder(Search)


@dataclass(frozen=True, slots=True)
class NewAction:
    id: str
    tenant_id: int
    kind: Kind
    filter: dict[str, Any]
    search: Search
    at: datetime
    """What matched then is acted on."""
    run_at: datetime | None = None
    priority: int | None = None
    rate_per_second: float | None = None
    most: int | None = None
    """Act on at most so many, the oldest first."""
    reason: str | None = None
    created_by: str | None = None
    matched: int | None = None
    """With `most`: how many matched."""
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class StoredAction:
    """An action as replicas work on it."""

    id: str
    tenant_id: int
    search: Search
    at: datetime
    running: bool
    listed: bool
    scanned_to: str
    wanted: int | None
    """How many more tasks to list; None: all."""
    view: ActionView


class ChunkRefused(Exception):
    """Raised if the database refuses to act on a chunk. Nothing was changed."""

    def __init__(self, cause: str, *, passing: bool) -> None:
        super().__init__(cause)
        self.passing = passing
        """Others were in the way, as in a deadlock: the same chunk may do next time."""


class Acted(msgspec.Struct, frozen=True):
    """What a call of act_v1 has done, for those who wait for it."""

    verdict: str
    """acted | busy | waits | unlisted | over | again"""
    seconds: float = 0.0
    left: bool = False
    acted: int = 0
    done: int = 0
    cancelled: list[Cancelled] = []
    purged: dict[int, int] = {}
    called: list[Called] = []
    lanes: list[tuple[int, int]] = []
    due_at: float | None = None
    batches: bool = False


_ACTED = msgspec.json.Decoder(Acted)


async def add(db: Reader, action: NewAction) -> bool:
    """Store an action; return False if there is one under its idempotency key already."""
    added = await db.fetchval(
        _ADD,
        action.id,
        action.tenant_id,
        action.kind,
        msgspec.json.encode(action.filter).decode(),
        msgspec.json.encode(action.search).decode(),
        action.run_at,
        action.priority,
        action.rate_per_second,
        action.most,
        action.reason,
        action.created_by,
        action.matched,
        action.at,
        action.idempotency_key,
    )
    return added is not None


async def keyed(db: Reader, tenant_id: int, key_id: str | None, idempotency_key: str) -> ActionView | None:
    """Return the action that an API key has started under an idempotency key."""
    rows = await db.fetch(_KEYED, tenant_id, key_id, idempotency_key)
    return _view(rows[0]) if rows else None


async def read(db: Reader, action_id: str) -> StoredAction | None:
    rows = await db.fetch(_READ, action_id)
    if not rows:
        return None
    row = rows[0]
    wanted = None
    if row["most"] is not None:
        waiting = row["found"] - row["done"] - row["refused"] - row["failed"]
        wanted = max(0, row["most"] - row["done"] - waiting)
    return StoredAction(
        id=action_id,
        tenant_id=row["tenant_id"],
        search=_SEARCH.decode(row["search"]),
        at=row["created_at"],
        running=row["state"] == "running",
        listed=row["listed"],
        scanned_to=str(row["scanned_to"]),
        wanted=wanted,
        view=_view(row),
    )


async def list_page(
    db: Reader, tenant_id: int, before: str | None, limit: int, *, within: Sequence[str] | None, key_id: str | None
) -> list[ActionView]:
    """Newest first. `within`: patterns of queues; only actions on those, or of this key."""
    patterns = None if within is None else like_patterns(within)
    return [_view(row) for row in await db.fetch(_SHOW, tenant_id, before or LAST, limit, patterns, key_id)]


async def moves_from(db: Reader, tenant_id: int, queue: str, queue_id: int, limit: int) -> list[ActionView]:
    """Return the actions that move tasks out of a queue, newest first."""
    return [_view(row) for row in await db.fetch(_MOVES, tenant_id, queue, queue_id, limit)]


async def was_emptied(db: Reader, tenant_id: int, queue: str, queue_id: int, seconds: float) -> bool:
    """Return whether an action to empty the queue was started in the last so many seconds."""
    return bool(await db.fetchval(_RECENT_PURGE, tenant_id, queue, queue_id, seconds))


async def note_listed(db: Reader, action: StoredAction, reached: str | None, found: Sequence[str]) -> bool:
    """Put these tasks on the list; return False if another replica was first. `reached`: None at the end of the search."""
    noted: bool = await db.fetchval(_LIST, action.id, action.scanned_to, reached or LAST, reached is None, list(found))
    return noted


async def act(db: Reader, action_id: str, limit: int, *, told: Told = untold) -> Acted:
    """Act on up to `limit` listed tasks. `told` hears of the callbacks of tasks that ended. Raises ChunkRefused, Unavailable
    (Held: a transaction that goes on has one of these tasks, or its unique key)."""
    try:
        document = await db.fetchval(_ACT, action_id, limit)
    except asyncpg.PostgresError as error:
        raise ChunkRefused(str(error), passing=isinstance(error, asyncpg.TransactionRollbackError)) from error
    acted = _ACTED.decode(document)
    for called in acted.called:
        told(called)
    return acted


async def next_task(db: Reader, action_id: str) -> str | None:
    """Return the task that the next chunk begins with."""
    found = await db.fetchval(_NEXT, action_id)
    return None if found is None else str(found)


async def fail_task(db: Reader, action_id: str, task_id: str) -> None:
    """Count a task as failed and take it off the list, unless it has been acted on or passed over by now."""
    await db.fetch(_FAIL, action_id, task_id)


async def cancel(db: Reader, tenant_id: int, action_id: str) -> bool:
    """End an action as it is; return False if it has ended already."""
    return bool(await db.fetch(_CANCEL, tenant_id, action_id))


async def due(db: Reader) -> list[str]:
    """Return actions that may go on: one of each tenant, then another of each."""
    return [str(row["id"]) for row in await db.fetch(_DUE, DUE)]


async def last_errors(db: Reader, task_ids: Sequence[str]) -> dict[str, str]:
    """Return the newest error of each task that has one."""
    rows = await db.fetch(_ERRORS, list(task_ids))
    return {str(row["id"]): row["last_error"] for row in rows if row["last_error"] is not None}


def _view(row: Any) -> ActionView:
    return view_of(
        {**row, "id": str(row["id"])},
        filter=msgspec.json.decode(row["filter"]),
        errors=[problem_of(error["task"], error["why"]) for error in msgspec.json.decode(row["errors"])],
    )
