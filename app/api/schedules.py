"""Schedules, and the ledger of what happened to each of their times."""

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response

from app.api.models.schedules import (
    NO_INSTANT,
    BackfilledOut,
    BackfillIn,
    Outcome,
    PreviewIn,
    PreviewOut,
    RunOut,
    ScheduleIn,
    ScheduleOut,
    TriggerIn,
)
from app.domain.errors import FieldError, invalid, invalid_field
from app.domain.ids import parse_uuid
from app.domain.ijson import parse_ijson
from app.domain.instants import format_instant, parse_instant
from app.domain.names import NAME_PATTERN, is_name
from app.domain.schedules.bodies import parse_schedule
from app.domain.tasks import payload_of
from app.edge.auth import CoreDep, Manager, User
from app.edge.conditions import ConditionsDep
from app.edge.pages import Cursor, Limit, binding, next_cursor, position_of
from app.edge.problems import EMPTY, ETAG, problems
from app.edge.replies import Page, json_reply
from app.edge.strict import StrictRoute
from app.service import backfills, schedules


class BytesRoute(StrictRoute):
    """A route whose body is passed on as bytes, because the payload must stay byte for byte."""

    judges = False


bytes_router = APIRouter(prefix="/schedules", tags=["schedules"], route_class=BytesRoute)
router = APIRouter(prefix="/schedules", tags=["schedules"], route_class=StrictRoute)
ScheduleName = Annotated[str, Path(pattern=NAME_PATTERN)]
InstantQuery = Annotated[str | None, Query(max_length=50, json_schema_extra={"format": "date-time"})]
LIST = binding("schedules")
MAX_PREVIEW = 1000


def _body(model: type) -> dict[str, object]:
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


@router.get("", operation_id="list_schedules", response_model=Page[ScheduleOut], responses=problems())
async def list_schedules(core: CoreDep, caller: User, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """List schedules, by name."""
    views, more = await schedules.list_page(core, caller, position_of(cursor, LIST, is_name), limit)
    following = next_cursor(LIST, views[-1]["id"]) if more else None
    return json_reply(msgspec.json.encode({"items": views, "next_cursor": following}))


@bytes_router.post(
    "/preview",
    operation_id="preview_definition",
    response_model=PreviewOut,
    responses=problems(body=True),
    openapi_extra=_body(PreviewIn),
)
async def preview_definition(request: Request, core: CoreDep, caller: User) -> Response:
    """Preview the next times of a definition without saving it. Queue and payload are optional."""
    given = parse_ijson(await request.body())
    if not isinstance(given, dict):
        raise invalid_field("", "expected an object")
    count, after = given.pop("count", 10), given.pop("after", None)
    errors = []
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MAX_PREVIEW:
        errors.append(FieldError("/count", f"expected an integer from 1 to {MAX_PREVIEW}"))
    at = core.clock.now() if after is None else parse_instant(after) if isinstance(after, str) else None
    if at is None:
        errors.append(FieldError("/after", NO_INSTANT))
    if errors:
        raise invalid(errors)
    body = msgspec.json.encode({"queue": "preview", "payload": None, **given})
    definition = parse_schedule(body, core.max_payload_bytes)
    assert at is not None, "judged above"
    return json_reply(msgspec.json.encode(await schedules.preview(definition, count, at)))


@bytes_router.put(
    "/{name}",
    operation_id="put_schedule",
    response_model=ScheduleOut,
    responses=problems(
        "etag_mismatch",
        "payload_schema_mismatch",
        body=True,
        also={200: ETAG, 201: {"model": ScheduleOut, "description": "Created.", **ETAG}},
    ),
    openapi_extra=_body(ScheduleIn),
)
async def put_schedule(
    request: Request, core: CoreDep, caller: Manager, name: ScheduleName, conditions: ConditionsDep
) -> Response:
    """Create or replace a schedule. Absent fields get their defaults; a pause is kept. Only later times fire."""
    definition = parse_schedule(await request.body(), core.max_payload_bytes)
    saved = await schedules.put(core, caller, name, definition, conditions)
    return json_reply(msgspec.json.encode(saved.view), 201 if saved.created else 200, {"etag": saved.etag})


@router.get(
    "/{name}",
    operation_id="get_schedule",
    response_model=ScheduleOut,
    responses=problems("schedule_not_found", also={200: ETAG}),
)
async def get_schedule(core: CoreDep, caller: User, name: ScheduleName) -> Response:
    """Read a schedule, with its next five times and a description in plain English."""
    view, etag = await schedules.get(core, caller, name)
    return json_reply(msgspec.json.encode(view), headers={"etag": etag})


@router.delete(
    "/{name}",
    operation_id="delete_schedule",
    status_code=204,
    responses=problems("schedule_not_found", "etag_mismatch", also={204: EMPTY}),
)
async def delete_schedule(core: CoreDep, caller: Manager, name: ScheduleName, conditions: ConditionsDep) -> Response:
    """Delete a schedule: unfinished runs continue, but nothing new starts."""
    await schedules.delete(core, caller, name, conditions)
    return Response(status_code=204)


@router.post(
    "/{name}/pause",
    operation_id="pause_schedule",
    response_model=ScheduleOut,
    responses=problems("schedule_not_found", body=True),
)
async def pause_schedule(core: CoreDep, caller: Manager, name: ScheduleName) -> Response:
    """Pause a schedule: nothing starts, and times that pass are recorded as paused."""
    return json_reply(msgspec.json.encode(await schedules.pause(core, caller, name)))


@router.post(
    "/{name}/resume",
    operation_id="resume_schedule",
    response_model=ScheduleOut,
    responses=problems("schedule_not_found", body=True),
)
async def resume_schedule(core: CoreDep, caller: Manager, name: ScheduleName) -> Response:
    """Resume a paused schedule from the next time on."""
    return json_reply(msgspec.json.encode(await schedules.resume(core, caller, name)))


@router.post(
    "/{name}/trigger",
    operation_id="trigger_schedule",
    response_model=RunOut,
    responses=problems("schedule_not_found", "payload_schema_mismatch", body=True),
)
async def trigger_schedule(
    request: Request, core: CoreDep, caller: User, name: ScheduleName, body: TriggerIn | None = None
) -> Response:
    """Start a run now, even while paused. Returns its ledger row."""
    payload = payload_of(await request.body(), max_bytes=core.max_payload_bytes) if body else None
    overlap = body.overlap if body else None
    return RunOut.of(await schedules.trigger(core, caller, name, payload, overlap)).reply()


@router.post(
    "/{name}/backfill",
    operation_id="backfill_schedule",
    status_code=202,
    response_model=BackfilledOut,
    responses=problems("schedule_not_found", body=True),
)
async def backfill_schedule(core: CoreDep, caller: Manager, name: ScheduleName, body: BackfillIn) -> Response:
    """Run the times in a window that have no run yet, at most 10,000."""
    from_, to = body.window()
    found = await backfills.backfill(core, caller, name, from_, to, body.overlap, body.rerun)
    return BackfilledOut.of(found).reply(202)


@router.get(
    "/{name}/history",
    operation_id="schedule_history",
    response_model=Page[RunOut],
    responses=problems("schedule_not_found"),
)
async def schedule_history(
    core: CoreDep,
    caller: User,
    name: ScheduleName,
    outcome: Annotated[Outcome | None, Query()] = None,
    from_: Annotated[str | None, Query(alias="from", max_length=50, json_schema_extra={"format": "date-time"})] = None,
    to: InstantQuery = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """List a schedule's ledger, newest first. Every nominal time is in exactly one row.

    With `outcome`, a page may have fewer rows than `limit`, or none, although there are more: follow `next_cursor` until it is
    null.
    """
    span = {"from": from_, "to": to}
    found = {key: None if text is None else parse_instant(text) for key, text in span.items()}
    if errors := [FieldError(f"/{key}", NO_INSTANT) for key, text in span.items() if text and found[key] is None]:
        raise invalid(errors)
    bound_to = binding("history", name, outcome, found["from"], found["to"])
    position = position_of(cursor, bound_to, _position)
    rows, last = await schedules.history(
        core,
        caller,
        name,
        outcome=outcome,
        from_=found["from"],
        to=found["to"],
        before=_position(position) if position else None,
        limit=limit,
    )
    return Page[RunOut](
        items=[RunOut.of(row) for row in rows],
        next_cursor=next_cursor(bound_to, f"{format_instant(last[0])} {last[1]}") if last else None,
    ).reply()


def _position(text: str) -> tuple[datetime, str] | None:
    at, _, row_id = text.partition(" ")
    found, parsed = parse_instant(at), parse_uuid(row_id)
    return None if found is None or parsed is None else (found.astimezone(UTC), parsed)


@router.get(
    "/{name}/preview",
    operation_id="preview_schedule",
    response_model=PreviewOut,
    responses=problems("schedule_not_found"),
)
async def preview_schedule(
    core: CoreDep,
    caller: User,
    name: ScheduleName,
    count: Annotated[int, Query(ge=1, le=MAX_PREVIEW)] = 10,
    after: InstantQuery = None,
) -> Response:
    """Preview the next times of a schedule."""
    at = None if after is None else parse_instant(after)
    if at is None and after is not None:
        raise invalid_field("/after", NO_INSTANT)
    return json_reply(msgspec.json.encode(await schedules.preview_saved(core, caller, name, count, at)))
