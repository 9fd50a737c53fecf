"""Reads of tasks and attempts: live and history in one statement, so that a task that ends in between is never missed."""

from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any

import msgspec

from app.domain.instants import format_instant
from app.domain.options import Options, decode_options
from app.domain.views import AttemptView, LeaseView, TaskView, carried, shown_payload, shown_result, waiting
from app.domain.waiting import NO_WORKER_SECONDS, WaitingFacts
from app.store.contents import open_excerpt, open_payload, open_result
from app.store.db import Reader
from app.store.replicas import ENGINES
from app.store.statements import fill, part, sql
from app.store.vault import Vault, VaultError

PAGE_BYTES = 8_388_608
"""A page ends after this much payload, result and progress, because a caller may have 200 of the largest tasks."""

RUNNING = part("running", row="t")
LIVE = sql(
    "show_live_tasks",
    running=RUNNING,
    others_running=part("running", row="r"),
    engines=ENGINES,
    no_worker_seconds=str(NO_WORKER_SECONDS),
)
_ENDED = sql("show_ended_tasks")


def _these(table: str) -> str:
    """Return the rows of these ids as a source, which shows of live tasks read twice."""
    return part("rows_of_ids", table=table, ids="any($1::uuid[])")


_THIS = part("rows_of_ids", table="tasks", ids="$1")
_OF_TENANT = "t.id = $1 and ($2::bigint is null or t.tenant_id = $2)"
ONE_TASK = "\nunion all\n".join(
    (
        fill(LIVE, payload="t.payload", source=_THIS, where=_OF_TENANT),
        fill(
            _ENDED,
            payload="t.payload",
            source="sluice.task_history",
            where=f"{_OF_TENANT} and (t.kept_until > clock_timestamp() or $3)",
        ),
    )
)
"""Both in one statement, so that a task that ends in between is never missed."""
LIVE_TASKS = fill(LIVE, payload="t.payload", source=_these("tasks"), where="t.tenant_id = $2")
WATCHED = "\nunion all\n".join(
    fill(statement, payload="null::bytea", source=_these(table), where=f"true{kept}")
    for statement, table, kept in (
        (LIVE, "tasks", ""),
        (_ENDED, "task_history", " and t.kept_until > clock_timestamp()"),
    )
)
NOT_LIVE = sql("find_not_live")
_SIZED = sql("cut_page", bytes=str(PAGE_BYTES))
ATTEMPTS = sql("list_attempts")


async def find_task(
    db: Reader, vault: Vault, tenant_id: int, task_id: str, *, even_past: bool = False
) -> TaskView | None:
    """Return a task. With `even_past`, also one whose retention has passed, for the answer of the request that ended it."""
    rows = await db.fetch(ONE_TASK, task_id, tenant_id, even_past)
    return task_view(vault, rows[0]) if rows else None


async def find_any(db: Reader, vault: Vault, task_id: str) -> TaskView | None:
    """Return a task of any tenant, for the holder of its lease token."""
    rows = await db.fetch(ONE_TASK, task_id, None, True)
    return task_view(vault, rows[0]) if rows else None


async def find_tasks(db: Reader, vault: Vault, tenant_id: int, task_ids: Sequence[str]) -> dict[str, TaskView]:
    """Return those of these tasks that are live, by id."""
    if not task_ids:
        return {}
    rows = await db.fetch(LIVE_TASKS, list(task_ids), tenant_id)
    return {str(row["id"]): task_view(vault, row) for row in rows}


async def watched(db: Reader, task_ids: Sequence[str]) -> dict[str, str]:
    """Return a digest of each of these tasks of any tenant that can be read, which differs when the task does."""
    rows = await db.fetch(WATCHED, task_ids)
    return {str(row["id"]): blake2b(repr(tuple(row)).encode(), digest_size=8).hexdigest() for row in rows}


async def not_live(db: Reader, task_ids: Sequence[str]) -> list[str]:
    """Return those of these tasks that have ended or never existed."""
    return [str(row[0]) for row in await db.fetch(NOT_LIVE, task_ids)]


async def show_tasks(
    db: Reader, vault: Vault, args: Sequence[Any], live: Sequence[str], ended: Sequence[str], *, payloads: bool
) -> list[TaskView]:
    """Return the matching tasks of the given ids, newest first, up to PAGE_BYTES. A side without conditions has none.

    A task that has changed since it was found is shown only if it still matches.
    """
    sides = [
        fill(
            statement,
            payload="t.payload" if payloads else "null::bytea",
            source=part("tasks_by_id", table=table),
            where=" and ".join(conditions),
        )
        for statement, table, conditions in ((LIVE, "tasks", live), (_ENDED, "task_history", ended))
        if conditions
    ]
    sized = fill(_SIZED, found="\nunion all\n".join(sides))
    return [task_view(vault, row) for row in await db.fetch(sized, *args)]


async def list_attempts(
    db: Reader, vault: Vault, tenant_id: int, task_id: str, before: int, limit: int
) -> list[AttemptView]:
    """Return attempts numbered below `before`, newest first."""
    return [
        AttemptView(
            *(r[0], r[1], r[2], _at(r[3]) or "", _at(r[4]), r[5], r[6], r[7]),
            excerpt=open_excerpt(vault, tenant_id, task_id, r[8]),
            trace_id=r[9],
        )
        for r in await db.fetch(ATTEMPTS, task_id, tenant_id, before, limit)
    ]


def _at(instant: datetime | None) -> str | None:
    return None if instant is None else format_instant(instant)


def _decoded(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)


_FACTS = msgspec.json.Decoder(WaitingFacts)


def facts_of(row: Any) -> WaitingFacts | None:
    """Return what decides about a task that waits; None for a running or ended one."""
    return None if row["waits"] is None else _FACTS.decode(row["waits"])


def _content(vault: Vault, row: Any, options: Options) -> tuple[bytes | None, bytes | None, bool]:
    """Return payload (None: not asked for) and result (None: there is none) as they were, and whether one of them is lost."""
    payload, result = row["payload"], row["result"]
    if not options.sealed:
        return payload, result, False
    lost, task_id = False, str(row["id"])
    try:
        if payload is not None:
            payload = open_payload(vault, row["tenant_id"], task_id, options, payload)
    except VaultError:
        payload, lost = b"null", True
    try:
        if result is not None:
            result = open_result(vault, row["tenant_id"], task_id, options, result)
    except VaultError:
        result, lost = None, True
    return payload, result, lost


def task_view(vault: Vault, row: Any) -> TaskView:
    lease = row["lease_expires_at"]
    options = decode_options(row["options"])
    payload, stored_result, lost = _content(vault, row, options)
    result, encoding = shown_result(stored_result, None if lost and stored_result is None else row["result_format"])
    return TaskView(
        id=str(row["id"]),
        queue=row["queue"],
        handler=row["handler"],
        state=row["state"],
        reason=row["reason"],
        priority=row["priority"],
        idempotency_key=row["idempotency_key"],
        unique_key=row["unique_key"],
        created_at=_at(row["created_at"]) or "",
        run_at=_at(row["run_at"]) or "",
        started_at=_at(row["started_at"]),
        ended_at=_at(row["ended_at"]),
        expires_at=_at(row["expires_at"]),
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        timeout_seconds=row["timeout_seconds"],
        last_error=row["last_error"],
        result=result,
        result_encoding=encoding or msgspec.UNSET,
        result_truncated=row["result_truncated"],
        progress=_decoded(row["progress"]),
        lease=None if lease is None else LeaseView(_at(lease) or ""),
        replica=row["replica"],
        scheduled_for=_at(options.scheduled_for),
        batch=None if row["batch_id"] is None else str(row["batch_id"]),
        parent=None if row["parent_id"] is None else str(row["parent_id"]),
        **waiting(facts_of(row)),
        encrypted=True if options.sealed else msgspec.UNSET,
        content_lost=True if lost else msgspec.UNSET,
        **shown_payload(payload, options),
        **carried(options),
    )
