"""Rows of the audit."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from app.domain.ids import Uuid
from app.domain.instants import Instant, format_instant
from app.store.audit import AuditRow

Changed = Annotated[
    Any,
    Meta(
        description="The fields that changed; secrets, headers and content as `***`. Null: there was nothing, or nothing is left.",
        extra_json_schema={"anyOf": [{"type": "object"}, {"type": "null"}]},
    ),
]


class KeyActor(Struct):
    """Who called: a key, or anyone where authentication is off (`key` is null)."""

    key: str | None
    tenant: str
    scope: str


class AuditOut(Struct):
    """Who changed what, when, from where, with what result."""

    id: Uuid
    at: Instant
    actor: Annotated[
        KeyActor | Literal["cli", "system"],
        Meta(description="`cli`: a command on the database itself; `system`: Sluice did it by itself."),
    ]
    verb: str
    noun: str
    name: Annotated[str | None, Meta(description="Name or id of what was changed; null for what has none.")]
    tenant: Annotated[str, Meta(description="Whose it is.")]
    outcome: Literal["done", "refused"]
    code: Annotated[str | None, Meta(description="Error code, if it was refused.")]
    calls: Annotated[
        int,
        Meta(
            description="How many calls it stands for: more than one only of calls that were refused after many others of the"
            " same key in the same minute."
        ),
    ]
    before: Changed
    after: Changed
    address: Annotated[str | None, Meta(description="Where the connection came from; behind a proxy, the proxy.")]
    request_id: Annotated[str | None, Meta(description="The `x-request-id` of the call, which is also in the log.")]
    replica: str | None


def audit_out(row: AuditRow) -> AuditOut:
    return AuditOut(
        id=row.id,
        at=format_instant(row.at),
        actor=(
            KeyActor(row.actor_key, row.actor_tenant or "", row.actor_scope or "") if row.actor == "key" else row.actor  # type: ignore[arg-type]  # a constraint of the table
        ),
        verb=row.verb,
        noun=row.noun,
        name=row.name,
        tenant=row.tenant,
        outcome=row.outcome,  # type: ignore[arg-type]  # a constraint of the table
        code=row.code,
        calls=row.calls,
        before=_raw(row.before),
        after=_raw(row.after),
        address=row.address,
        request_id=row.request_id,
        replica=row.replica,
    )


def _raw(text: str | None) -> msgspec.Raw | None:
    return None if text is None else msgspec.Raw(text.encode())
