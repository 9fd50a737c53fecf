"""The audit: who changed what, when, from where, with what result. Rows are only added, each in the transaction of its change."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

import msgspec

from app.domain.audit import Fields, changed, recorded_name
from app.domain.callers import Act, Caller
from app.store.db import Reader
from app.store.statements import call, fill, sql
from app.store.windows import Windows

_RECORD = call("record_audit_v1", 1)
_RECORD_REFUSALS = sql("record_refusals")
_LOOK = sql("look_through_audit")
_LIST = sql("list_audit")
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
"""As JSON escapes it; jsonb cannot hold one."""

Position = tuple[datetime, str]
"""(at, id) of a row."""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """The columns of list_audit."""

    at: datetime
    id: str
    tenant: str
    actor: str
    actor_key: str | None
    actor_tenant: str | None
    actor_scope: str | None
    verb: str
    noun: str
    name: str | None
    outcome: str
    code: str | None
    calls: int
    before: str | None
    """As JSON, like `after`."""
    after: str | None
    address: str | None
    request_id: str | None
    replica: str | None


async def record(
    connection: Reader,
    caller: Caller,
    before: Fields | None,
    after: Fields | None,
    *,
    name: str | None = None,
    tenant_id: int | None = None,
) -> None:
    """Record what the caller does (`caller.act`), in the transaction that does it: fields as they were, and as they are.

    None: there was nothing, or nothing is left. `name` is given for what has got its name just now, `tenant_id` for what is
    another tenant's.
    """
    await connection.fetch(_RECORD, _encoded(caller, changed(before, after), None, name=name, tenant_id=tenant_id))


async def record_refusal(reader: Reader, caller: Caller, code: str) -> None:
    """Record that the caller was refused what it wanted to do, with the code that it got."""
    await reader.fetch(_RECORD, _encoded(caller, (None, None), code))


class Refused(NamedTuple):
    """Calls of one caller that were refused with the same code."""

    caller: Caller
    code: str
    calls: int


async def record_refusals(reader: Reader, refused: Sequence[Refused]) -> None:
    """Record refused calls in one statement, with a row for each of these."""
    if refused:
        rows = [_encoded(one.caller, (None, None), one.code, calls=one.calls) for one in refused]
        await reader.fetch(_RECORD_REFUSALS, rows)


async def record_by(
    actor: Literal["cli", "system"],
    connection: Reader,
    tenant_id: int,
    act: Act,
    before: Fields | None,
    after: Fields | None,
) -> None:
    """Record what a command on the database itself does, or Sluice by itself."""
    await record(connection, Caller(tenant_id, "", "operate", actor=actor, act=act), before, after)


def _encoded(
    caller: Caller,
    fields: tuple[dict[str, Any] | None, dict[str, Any] | None],
    code: str | None,
    *,
    name: str | None = None,
    tenant_id: int | None = None,
    calls: int = 1,
) -> str:
    act = caller.act
    assert act is not None, "its verb is not audited"
    keyed = caller.actor == "key"
    row = {
        "tenant_id": caller.tenant_id if tenant_id is None else tenant_id,
        "actor": caller.actor,
        "actor_key": caller.key_id,
        "actor_tenant": caller.tenant if keyed else None,
        "actor_scope": caller.scope if keyed else None,
        "verb": act.verb,
        "noun": act.noun,
        "name": recorded_name(act.name if name is None else name),
        "outcome": "done" if code is None else "refused",
        "code": code,
        "calls": calls,
        "before": fields[0],
        "after": fields[1],
        "address": caller.address,
        "request_id": caller.request_id,
        "replica": act.replica,
    }
    return _NUL.sub(r"\1\\ufffd", msgspec.json.encode(row).decode())


@dataclass(frozen=True, slots=True)
class AuditFilters:
    """None: any."""

    actor: str | None = None
    """The id of a key, or `cli` or `system`."""
    verb: str | None = None
    noun: str | None = None
    name: str | None = None
    from_: datetime | None = None
    to: datetime | None = None


async def list_page(
    reader: Reader, tenant_id: int | None, filters: AuditFilters, before: Position | None, limit: int
) -> tuple[list[AuditRow], Position | None]:
    """Return rows, newest first, before a position, and the next position, None after the last. `tenant_id` None: of all tenants.

    A filter that no index serves may match few of very many rows, so they are searched in windows, like pages of tasks
    (task_lists). A page may therefore have fewer rows than `limit` although there are more.
    """
    windows = Windows(limit + 1)
    found: list[Position] = []
    position = before
    while True:
        fits, position = await _look(reader, tenant_id, filters, position, windows.rows, limit + 1 - len(found))
        found += fits
        if len(found) > limit or position is None or not windows.looked():
            break
    if len(found) > limit:
        del found[limit:]
        position = found[-1]
    rows = await reader.fetch(_LIST, [at for at, _ in found], [row_id for _, row_id in found]) if found else []
    return [AuditRow(row["at"], str(row["id"]), *tuple(row)[2:]) for row in rows], position


async def _look(
    reader: Reader, tenant_id: int | None, filters: AuditFilters, before: Position | None, rows: int, limit: int
) -> tuple[list[Position], Position | None]:
    """Return those of the newest `rows` rows that match, and the last one searched; None if there are no more."""
    args: list[Any] = []

    def given(value: object, kind: str) -> str:
        args.append(value)
        return f"${len(args)}::{kind}"

    within, fits = ["true"], ["true"]
    if tenant_id is not None:
        within.append(f"a.tenant_id = {given(tenant_id, 'bigint')}")
    if filters.name is not None:
        # the index on names is by tenant
        (fits if tenant_id is None else within).append(f"a.name = {given(filters.name, 'text')}")
    if filters.from_ is not None:
        within.append(f"a.at >= {given(filters.from_, 'timestamptz')}")
    if filters.to is not None:
        within.append(f"a.at < {given(filters.to, 'timestamptz')}")
    if before is not None:
        within.append(f"(a.at, a.id) < ({given(before[0], 'timestamptz')}, {given(before[1], 'uuid')})")
    actor = "a.actor" if filters.actor in ("cli", "system") else "a.actor_key"
    for column, value in (("a.verb", filters.verb), ("a.noun", filters.noun), (actor, filters.actor)):
        if value is not None:
            fits.append(f"{column} = {given(value, 'text')}")
    parts = {"within": " and ".join(within), "fits": " and ".join(fits), "rows": str(rows), "limit": str(limit)}
    [row] = await reader.fetch(fill(_LOOK, **parts), *args)
    last = (row["at"], row["id"]) if row["looked_at"] >= rows else None
    return list(zip(row["instants"], row["ids"], strict=True)), last
