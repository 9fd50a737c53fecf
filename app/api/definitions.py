"""Definitions as code: plan and apply a document of limits, handlers, queues, schedules and sources."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar

import msgspec
from fastapi import APIRouter, Depends, Response
from msgspec import UNSET

from app.api.bulk import LargeRoute
from app.api.models.definitions import (
    AppliedOut,
    ApplyBody,
    ApplyOutline,
    ChangeOut,
    DefinitionsBody,
    FieldChangeOut,
    PlanOut,
    PlanOutline,
)
from app.domain.bodies import read
from app.domain.definitions import MAX_DEFINITIONS, SECTIONS, DefinitionChange, Document
from app.domain.errors import Refusal, invalid_field, pointer
from app.domain.handlers import HandlerBody
from app.domain.ijson import parse_ijson
from app.domain.limits import LimitDefinition, Limits
from app.domain.queues import QueueBody
from app.domain.schedules.bodies import parse_schedule
from app.domain.sources import SourceDefinition
from app.edge.auth import CoreDep, Manager
from app.edge.declared import Takes
from app.edge.problems import problems
from app.edge.replies import NO_STORE, reply
from app.runtime.pieces import in_pieces
from app.service import definitions
from app.service.definitions import Plan, joined, placed

MAX_BYTES = 8_388_608
_SPANS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class DefinitionsRoute(LargeRoute):
    """A route whose body is passed on as bytes, because payloads must stay byte for byte."""

    max_body_bytes: ClassVar[int | None] = MAX_BYTES


router = APIRouter(prefix="/definitions", tags=["definitions"], route_class=DefinitionsRoute)


CODES = ("egress_denied", "bridge_unavailable", "payload_schema_mismatch")


@router.post(
    "/plan",
    operation_id="plan_definitions",
    responses=problems(*CODES, shows=PlanOut, body=True),
)
async def plan_definitions(
    core: CoreDep, caller: Manager, body: Annotated[bytes, Depends(Takes(DefinitionsBody))]
) -> Response:
    """Return what applying this document would change, without changing anything."""
    document, _ = await parse_document(body, core.max_payload_bytes, PlanOutline)
    plan = await definitions.plan(core, caller, document)
    return reply(PlanOut(plan.version, await _changes(plan)))


@router.post(
    "/apply",
    operation_id="apply_definitions",
    responses=problems(
        *CODES, "etag_mismatch", "queue_in_use", "handler_in_use", "limit_in_use", shows=AppliedOut, body=True
    ),
)
async def apply_definitions(
    core: CoreDep, caller: Manager, body: Annotated[bytes, Depends(Takes(ApplyBody))]
) -> Response:
    """Change whatever differs from this document: limits, handlers, queues, schedules and sources, and then prune in reverse order.

    The whole document is validated before anything changes. Pauses and disabled handlers stay as they are. If someone else
    changes a definition in the meantime, that change is refused and the apply stops there.
    """
    document, version = await parse_document(body, core.max_payload_bytes, ApplyOutline)
    made = await definitions.apply(core, caller, document, version)
    return reply(AppliedOut(made.version, await _changes(made), made.secrets), headers=NO_STORE)


async def _changes(plan: Plan) -> list[msgspec.Raw]:
    """Encode each change by itself, because there may be thousands."""
    return [msgspec.Raw(msgspec.json.encode(_shown(change))) async for change in in_pieces(plan.changes)]


def _shown(change: DefinitionChange) -> ChangeOut:
    fields = [
        FieldChangeOut(one.field, one.before, one.after, True if one.content_hidden else UNSET) for one in change.fields
    ]
    return ChangeOut(change.kind, change.name, change.action, fields)


async def parse_document(
    body: bytes, max_payload_bytes: int, outline: type[PlanOutline]
) -> tuple[Document, str | None]:
    """Parse a document and its version. Raises Refusal: malformed, invalid (with every violation)."""
    given = read(parse_ijson(body), outline)
    if sum(len(getattr(given, section) or {}) for section in SECTIONS) > MAX_DEFINITIONS:
        raise invalid_field("", f"has more than {MAX_DEFINITIONS} definitions; split the document by section")
    schedule_spans = _SPANS.decode(_SPANS.decode(body)["schedules"]) if given.schedules else {}
    parse = _Parser()
    secrets: dict[str, str] = {}

    def handler(name: str, value: Any) -> Any:
        found = read(value, HandlerBody)
        if found.secret is not None:
            secrets[name] = found.secret
        return found.definition

    def schedule(name: str, _value: Any) -> Any:
        return parse_schedule(bytes(schedule_spans[name]), max_payload_bytes)

    document = Document(
        named_limits=await parse.section(
            "named_limits", given.named_limits, lambda _, value: read(value, LimitDefinition)
        ),
        handlers=await parse.section("handlers", given.handlers, handler),
        secrets=secrets,
        queues=await parse.section("queues", given.queues, lambda _, value: read(value, QueueBody).definition()),
        schedules=await parse.section("schedules", given.schedules, schedule),
        sources=await parse.section("sources", given.sources, lambda _, value: read(value, SourceDefinition).complete),
        limits=parse.limits(given.limits),
        prune=given.prune,
        owner=given.owner,
    )
    if parse.refusals:
        raise joined(parse.refusals)
    return document, getattr(given, "version", None)


class _Parser:
    """Parses definitions one after another, and collects their errors."""

    def __init__(self) -> None:
        self.refusals: list[Refusal] = []

    async def section(
        self, section: str, given: Mapping[str, Any] | None, read: Callable[[str, Any], Any]
    ) -> dict[str, Any] | None:
        if given is None:
            return None
        found: dict[str, Any] = {}
        async for name, definition in in_pieces(given.items()):
            with self._noting(pointer(section, name)):
                found[name] = read(name, definition)
        return found

    def limits(self, given: Any) -> Limits | None:
        if given is not None:
            with self._noting("/limits"):
                return read(given, Limits)
        return None

    @contextmanager
    def _noting(self, where: str) -> Iterator[None]:
        try:
            yield
        except Refusal as refusal:
            self.refusals.append(placed(refusal, where))
