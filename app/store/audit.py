"""The audit: who changed what, when, from where, with what result. Rows are only added, each in the transaction of its change."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import msgspec

from app.domain.audit import Fields, changed, recorded_name
from app.domain.callers import Act, Caller
from app.store.db import Reader
from app.store.statements import call, fill, sql

_RECORD = call("record_audit_v1", 1)
_LIST = sql("list_audit")

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
    await _add(connection, caller, changed(before, after), None, name, tenant_id)


async def record_refusal(reader: Reader, caller: Caller, code: str) -> None:
    """Record that the caller was refused what it wanted to do, with the code that it got."""
    await _add(reader, caller, (None, None), code, None, None)


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


async def _add(
    reader: Reader,
    caller: Caller,
    fields: tuple[dict[str, Any] | None, dict[str, Any] | None],
    code: str | None,
    name: str | None,
    tenant_id: int | None,
) -> None:
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
        "before": fields[0],
        "after": fields[1],
        "address": caller.address,
        "request_id": caller.request_id,
        "replica": act.replica,
    }
    await reader.fetch(_RECORD, msgspec.json.encode(row).decode())


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
) -> list[AuditRow]:
    """Return rows, newest first, before a position. `tenant_id` None: of all tenants."""
    args: list[Any] = [limit]

    def given(value: object, kind: str) -> str:
        args.append(value)
        return f"${len(args)}::{kind}"

    within = ["true"]
    for column, value, kind in (
        ("a.tenant_id", tenant_id, "bigint"),
        ("a.verb", filters.verb, "text"),
        ("a.noun", filters.noun, "text"),
        ("a.name", filters.name, "text"),
    ):
        if value is not None:
            within.append(f"{column} = {given(value, kind)}")
    if filters.actor in ("cli", "system"):
        within.append(f"a.actor = {given(filters.actor, 'text')}")
    elif filters.actor is not None:
        within.append(f"a.actor_key = {given(filters.actor, 'text')}")
    if filters.from_ is not None:
        within.append(f"a.at >= {given(filters.from_, 'timestamptz')}")
    if filters.to is not None:
        within.append(f"a.at < {given(filters.to, 'timestamptz')}")
    if before is not None:
        within.append(f"(a.at, a.id) < ({given(before[0], 'timestamptz')}, {given(before[1], 'uuid')})")
    rows = await reader.fetch(fill(_LIST, within=" and ".join(within)), *args)
    return [AuditRow(row["at"], str(row["id"]), *tuple(row)[2:]) for row in rows]
