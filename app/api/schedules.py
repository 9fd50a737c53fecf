"""Schedules, and the ledger of what happened to each of their times."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from msgspec import UNSET, structs

from app.api.models.schedules import BackfillBody, Outcome, RunOut, TriggerBody, WhyScheduleOut, run_out
from app.domain.errors import FieldError, invalid, invalid_field
from app.domain.ids import parse_uuid
from app.domain.instants import NO_INSTANT, format_instant, parse_instant
from app.domain.names import NAME_PATTERN, is_name
from app.domain.payloads import payload_of
from app.domain.schedules.bodies import parse_preview, parse_schedule
from app.domain.schedules.definitions import MAX_PREVIEW, Preview, PreviewBody, ScheduleBody, ScheduleView
from app.edge.auth import CoreDep, Manager, Reader, User
from app.edge.conditions import ConditionsDep
from app.edge.declared import Reads, Shown, Takes
from app.edge.pages import DEFAULT_LIMIT, Cursor, Limit, Page, binding, next_cursor, position_of
from app.edge.problems import EMPTY, ETAG, problems
from app.edge.replies import reply
from app.edge.strict import StrictRoute
from app.service import backfills, schedules, why
from app.service.backfills import Backfilled


class BytesRoute(StrictRoute):
    """A route whose body is passed on as bytes, because the payload must stay byte for byte."""

    validates = False


bytes_router = APIRouter(prefix="/schedules", tags=["schedules"], route_class=BytesRoute)
router = APIRouter(prefix="/schedules", tags=["schedules"], route_class=StrictRoute)
ScheduleName = Annotated[str, Path(pattern=NAME_PATTERN)]
InstantQuery = Annotated[str | None, Query(max_length=50, json_schema_extra={"format": "date-time"})]
LIST = binding("schedules")


@router.get("", operation_id="list_schedules", responses=problems(shows=Page[ScheduleView]))
async def list_schedules(
    core: CoreDep, caller: Reader, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Response:
    """List schedules, by name."""
    views, more = await schedules.list_page(core, caller, position_of(cursor, LIST, is_name), limit)
    following = next_cursor(LIST, views[-1].id) if more else None
    return reply(Page(views, following))


@bytes_router.post(
    "/preview",
    operation_id="preview_definition",
    responses=problems(shows=Preview, body=True),
)
async def preview_definition(
    core: CoreDep, caller: Reader, body: Annotated[bytes, Depends(Takes(PreviewBody))]
) -> Response:
    """Preview the next times of a definition without saving it. Queue and payload are optional."""
    definition, count, after = parse_preview(body, core.max_payload_bytes)
    return reply(await schedules.preview(definition, count, after or core.clock.now()))


@bytes_router.put(
    "/{name}",
    operation_id="put_schedule",
    responses=problems(
        "etag_mismatch",
        "egress_denied",
        "payload_schema_mismatch",
        body=True,
        also={200: Shown(ScheduleView, **ETAG), 201: Shown(ScheduleView, description="Created.", **ETAG)},
    ),
)
async def put_schedule(
    core: CoreDep,
    caller: Manager,
    name: ScheduleName,
    body: Annotated[bytes, Depends(Takes(ScheduleBody))],
    conditions: ConditionsDep,
) -> Response:
    """Create or replace a schedule. Absent fields get their defaults; a pause is kept. Only later times fire."""
    definition = parse_schedule(body, core.max_payload_bytes)
    saved = await schedules.put(core, caller, name, definition, conditions)
    return reply(saved.view, 201 if saved.created else 200, {"etag": saved.etag})


@router.get(
    "/{name}",
    operation_id="get_schedule",
    responses=problems("schedule_not_found", also={200: Shown(ScheduleView, **ETAG)}),
)
async def get_schedule(core: CoreDep, caller: Reader, name: ScheduleName) -> Response:
    """Read a schedule, with its next five times and a description in plain English."""
    view, etag = await schedules.get(core, caller, name)
    return reply(view, headers={"etag": etag})


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
    responses=problems("schedule_not_found", shows=ScheduleView, body=True),
)
async def pause_schedule(core: CoreDep, caller: Manager, name: ScheduleName) -> Response:
    """Pause a schedule: nothing starts, and times that pass are recorded as paused."""
    return reply(await schedules.pause(core, caller, name))


@router.post(
    "/{name}/resume",
    operation_id="resume_schedule",
    responses=problems("schedule_not_found", shows=ScheduleView, body=True),
)
async def resume_schedule(core: CoreDep, caller: Manager, name: ScheduleName) -> Response:
    """Resume a paused schedule from the next time on."""
    return reply(await schedules.resume(core, caller, name))


@router.post(
    "/{name}/trigger",
    operation_id="trigger_schedule",
    responses=problems("schedule_not_found", "payload_schema_mismatch", shows=RunOut, body=True),
)
async def trigger_schedule(
    request: Request,
    core: CoreDep,
    caller: User,
    name: ScheduleName,
    body: Annotated[TriggerBody, Depends(Reads(TriggerBody, TriggerBody()))],
) -> Response:
    """Start a run now, even while paused. Returns its ledger row."""
    given = body.payload is not UNSET
    payload = payload_of(await request.body(), max_bytes=core.max_payload_bytes) if given else None
    return reply(run_out(await schedules.trigger(core, caller, name, payload, body.overlap)))


@router.post(
    "/{name}/backfill",
    operation_id="backfill_schedule",
    status_code=202,
    responses=problems("schedule_not_found", body=True, also={202: Shown(Backfilled)}),
)
async def backfill_schedule(
    core: CoreDep,
    caller: Manager,
    name: ScheduleName,
    body: Annotated[BackfillBody, Depends(Reads(BackfillBody))],
) -> Response:
    """Run the times in a window that have no run yet, at most 10,000."""
    from_, to = body.window()
    found = await backfills.backfill(core, caller, name, from_, to, body.overlap, body.rerun)
    return reply(found, 202)


@router.get(
    "/{name}/history",
    operation_id="schedule_history",
    responses=problems("schedule_not_found", shows=Page[RunOut]),
)
async def schedule_history(
    core: CoreDep,
    caller: Reader,
    name: ScheduleName,
    outcome: Annotated[Outcome | None, Query()] = None,
    from_: Annotated[str | None, Query(alias="from", max_length=50, json_schema_extra={"format": "date-time"})] = None,
    to: InstantQuery = None,
    limit: Limit = DEFAULT_LIMIT,
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
    following = next_cursor(bound_to, f"{format_instant(last[0])} {last[1]}") if last else None
    return reply(Page([run_out(row) for row in rows], following))


def _position(text: str) -> tuple[datetime, str] | None:
    at, _, row_id = text.partition(" ")
    found, parsed = parse_instant(at), parse_uuid(row_id)
    return None if found is None or parsed is None else (found.astimezone(UTC), parsed)


@router.get(
    "/{name}/why",
    operation_id="why_schedule",
    responses=problems("schedule_not_found", shows=WhyScheduleOut),
)
async def why_schedule(core: CoreDep, caller: Reader, name: ScheduleName, at: InstantQuery = None) -> Response:
    """Say why a schedule did or did not fire at an instant; without `at`, why it did not fire last, and when it fires next."""
    instant = None if at is None else parse_instant(at)
    if instant is None and at is not None:
        raise invalid_field("/at", NO_INSTANT)
    found, row = await why.of_schedule(core, caller, name, instant)
    return reply(WhyScheduleOut(**structs.asdict(found), row=UNSET if row is None else run_out(row)))


@router.get(
    "/{name}/preview",
    operation_id="preview_schedule",
    responses=problems("schedule_not_found", shows=Preview),
)
async def preview_schedule(
    core: CoreDep,
    caller: Reader,
    name: ScheduleName,
    count: Annotated[int, Query(ge=1, le=MAX_PREVIEW)] = 10,
    after: InstantQuery = None,
) -> Response:
    """Preview the next times of a schedule."""
    at = None if after is None else parse_instant(after)
    if at is None and after is not None:
        raise invalid_field("/after", NO_INSTANT)
    return reply(await schedules.preview_saved(core, caller, name, count, at))
