"""The audit: who changed what; and which operations leave a row in it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response

from app.api.models.audit import AuditOut, audit_out
from app.domain.audit import MAX_NAME
from app.domain.errors import FieldError, invalid
from app.domain.ids import parse_uuid
from app.domain.instants import NO_INSTANT, format_instant, parse_instant
from app.domain.texts import check_text
from app.edge.auth import CoreDep, Manager
from app.edge.pages import DEFAULT_LIMIT, Cursor, Limit, Page, binding, next_cursor, position_of
from app.edge.problems import problems
from app.edge.replies import reply
from app.edge.strict import StrictRoute
from app.service import (
    actions,
    audit,
    backfills,
    batches,
    breakers,
    definitions,
    handlers,
    keys,
    limit_keys,
    limits,
    patches,
    queues,
    schedules,
    sources,
    sweeps,
    tasks,
    tenant_limits,
)
from app.service.audit import Audited
from app.store.audit import AuditFilters, Position

AUDITED: Final[Mapping[str, Audited[Any, Any]]] = {
    "put_handler": handlers.put,
    "delete_handler": handlers.delete,
    "enable_handler": handlers.enable,
    "disable_handler": handlers.disable,
    "rotate_handler_secret": handlers.rotate_secret,
    "set_handler_breaker": breakers.set_breaker,
    "put_queue": queues.put,
    "delete_queue": queues.delete,
    "pause_queue": queues.pause,
    "resume_queue": queues.resume,
    "put_queue_key": limit_keys.put_of_queue,
    "pause_queue_key": limit_keys.pause_of_queue,
    "resume_queue_key": limit_keys.resume_of_queue,
    "put_limits": tenant_limits.put,
    "put_tenant_limits": tenant_limits.put_grant,
    "put_limit": limits.put,
    "delete_limit": limits.delete,
    "pause_limit": limits.pause,
    "resume_limit": limits.resume,
    "put_limit_key": limit_keys.put,
    "delete_limit_key": limit_keys.delete,
    "pause_limit_key": limit_keys.pause,
    "resume_limit_key": limit_keys.resume,
    "put_schedule": schedules.put,
    "delete_schedule": schedules.delete,
    "pause_schedule": schedules.pause,
    "resume_schedule": schedules.resume,
    "trigger_schedule": schedules.trigger,
    "backfill_schedule": backfills.backfill,
    "put_source": sources.put,
    "delete_source": sources.delete,
    "pause_source": sources.pause,
    "resume_source": sources.resume,
    "update_task": patches.update,
    "cancel_task": tasks.cancel,
    "retry_task": tasks.retry,
    "purge_queue": sweeps.purge,
    "redrive_queue": sweeps.redrive,
    "start_action": actions.start,
    "cancel_action": actions.cancel,
    "cancel_batch": batches.cancel,
    "retry_batch": batches.retry,
    "create_key": keys.issue,
    "rotate_key": keys.renew,
    "revoke_key": keys.withdraw,
    "apply_definitions": definitions.apply,
}
"""By operation: the verb that leaves a row. What is refused before it reaches the verb leaves one, too."""

router = APIRouter(tags=["audit"], route_class=StrictRoute)
Text = Annotated[str | None, Query(min_length=1, max_length=MAX_NAME)]
InstantQuery = Annotated[str | None, Query(max_length=50, json_schema_extra={"format": "date-time"})]


@router.get("/audit", operation_id="list_audit", responses=problems(shows=Page[AuditOut]))
async def list_audit(
    core: CoreDep,
    caller: Manager,
    actor: Annotated[
        str | None, Query(min_length=1, max_length=MAX_NAME, description="The id of a key, or `cli` or `system`.")
    ] = None,
    verb: Text = None,
    noun: Text = None,
    name: Text = None,
    from_: Annotated[str | None, Query(alias="from", max_length=50, json_schema_extra={"format": "date-time"})] = None,
    to: InstantQuery = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Response:
    """List what was changed, newest first: in the key's tenant, with scope operate in all tenants.

    A page may have fewer rows than `limit`, or none, although there are more: follow `next_cursor` until it is null.
    """
    span = {"from": from_, "to": to}
    found = {key: None if text is None else parse_instant(text) for key, text in span.items()}
    errors = [
        FieldError(f"/{key}", NO_INSTANT) for key, text in span.items() if text is not None and found[key] is None
    ]
    for key, text in {"actor": actor, "verb": verb, "noun": noun, "name": name}.items():
        errors += [] if text is None else check_text(text, f"/{key}", MAX_NAME)
    if errors:
        raise invalid(errors)
    filters = AuditFilters(actor, verb, noun, name, found["from"], found["to"])
    bound_to = binding("audit", filters)
    position = position_of(cursor, bound_to, _position)
    rows, last = await audit.list_page(core, caller, filters, _position(position) if position else None, limit)
    following = next_cursor(bound_to, f"{format_instant(last[0])} {last[1]}") if last else None
    return reply(Page([audit_out(row) for row in rows], following))


def _position(text: str) -> Position | None:
    at, _, row_id = text.partition(" ")
    found: datetime | None = parse_instant(at)
    parsed = parse_uuid(row_id)
    return None if found is None or parsed is None else (found, parsed)
