"""Definitions as code: plan and apply a document of handlers, queues, schedules and limits."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import msgspec
from fastapi import APIRouter, Request, Response

from app.api.bulk import LargeRoute
from app.api.models.definitions import AppliedOut, ApplyIn, DefinitionsIn, PlanOut
from app.domain.bodies import read
from app.domain.definitions import MAX_DEFINITIONS, MAX_VERSION, SECTIONS, DefinitionChange, Document
from app.domain.errors import FieldError, Refusal, invalid, invalid_field, pointer
from app.domain.handlers import HandlerBody
from app.domain.ijson import parse_ijson
from app.domain.limits import Limits
from app.domain.names import NAME_RULE, is_name
from app.domain.queues import QueueBody
from app.domain.schedules.bodies import parse_schedule
from app.edge.auth import CoreDep, Manager
from app.edge.problems import problems
from app.edge.replies import NO_STORE, json_reply
from app.runtime.pieces import in_pieces
from app.service import definitions
from app.service.definitions import Plan, joined, placed

MAX_BYTES = 8_388_608
_SPANS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class DefinitionsRoute(LargeRoute):
    """A route whose body is passed on as bytes, because payloads must stay byte for byte."""

    max_body_bytes: ClassVar[int | None] = MAX_BYTES


router = APIRouter(prefix="/definitions", tags=["definitions"], route_class=DefinitionsRoute)


def _body(model: type) -> dict[str, object]:
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


CODES = ("egress_denied", "payload_schema_mismatch")


@router.post(
    "/plan",
    operation_id="plan_definitions",
    response_model=PlanOut,
    responses=problems(*CODES, body=True),
    openapi_extra=_body(DefinitionsIn),
)
async def plan_definitions(request: Request, core: CoreDep, caller: Manager) -> Response:
    """Return what applying this document would change, without changing anything."""
    document, _ = await parse_document(await request.body(), core.max_payload_bytes, versioned=False)
    return json_reply(msgspec.json.encode(await shown(await definitions.plan(core, caller, document))))


@router.post(
    "/apply",
    operation_id="apply_definitions",
    response_model=AppliedOut,
    responses=problems(*CODES, "etag_mismatch", "queue_in_use", "handler_in_use", body=True),
    openapi_extra=_body(ApplyIn),
)
async def apply_definitions(request: Request, core: CoreDep, caller: Manager) -> Response:
    """Change whatever differs from this document: handlers, queues, schedules, limits, and then prune in reverse order.

    The whole document is validated before anything changes. Pauses and disabled handlers stay as they are. If someone else
    changes a definition in the meantime, that change is refused and the apply stops there.
    """
    document, version = await parse_document(await request.body(), core.max_payload_bytes, versioned=True)
    made = await definitions.apply(core, caller, document, version)
    return json_reply(msgspec.json.encode(await shown(made) | {"secrets": made.secrets}), headers=NO_STORE)


async def shown(plan: Plan) -> dict[str, Any]:
    return {"version": plan.version, "changes": [_change(change) async for change in in_pieces(plan.changes)]}


def _change(change: DefinitionChange) -> msgspec.Raw:
    """As JSON."""
    fields = [{"field": one.field, "from": one.before, "to": one.after} for one in change.fields]
    told = {"kind": change.kind, "name": change.name, "action": change.action, "changes": fields}
    return msgspec.Raw(msgspec.json.encode(told))


async def parse_document(body: bytes, max_payload_bytes: int, *, versioned: bool) -> tuple[Document, str | None]:
    """Parse a document and its version. Raises Refusal: malformed, invalid (with every violation)."""
    value = parse_ijson(body)
    if not isinstance(value, dict):
        raise invalid_field("", "expected an object")
    _check_outline(value, versioned)
    schedule_spans = _SPANS.decode(_SPANS.decode(body)["schedules"]) if value.get("schedules") else {}
    parse = _Parser()
    secrets: dict[str, str] = {}

    def handler(name: str, given: Any) -> Any:
        body = read(given, HandlerBody)
        if body.secret is not None:
            secrets[name] = body.secret
        return body.definition

    def schedule(name: str, _given: Any) -> Any:
        return parse_schedule(bytes(schedule_spans[name]), max_payload_bytes)

    document = Document(
        handlers=await parse.section(value, "handlers", handler),
        secrets=secrets,
        queues=await parse.section(value, "queues", lambda _, given: read(given, QueueBody).definition()),
        schedules=await parse.section(value, "schedules", schedule),
        limits=parse.limits(value.get("limits")),
        prune=value.get("prune", False),
        owner=value.get("owner"),
    )
    if parse.refusals:
        raise joined(parse.refusals)
    return document, value.get("version")


def _check_outline(value: Mapping[str, Any], versioned: bool) -> None:
    """Validate everything except the definitions themselves."""
    more = {"prune", "owner", "version"} if versioned else {"prune", "owner"}
    errors = [FieldError(pointer(name), "unknown field") for name in value if name not in {*SECTIONS, *more}]
    for section in SECTIONS:
        if not isinstance(value.get(section, {}), dict | None):
            errors.append(FieldError(pointer(section), "expected an object"))
        elif section != "limits":
            errors += [
                FieldError(pointer(section, name), f"is not a name ({NAME_RULE})")
                for name in value.get(section) or {}
                if not is_name(name)
            ]
    if not isinstance(value.get("prune", False), bool):
        errors.append(FieldError("/prune", "expected true or false"))
    owner = value.get("owner")
    if owner is not None and not (isinstance(owner, str) and is_name(owner)):
        errors.append(FieldError("/owner", f"is not a name ({NAME_RULE})"))
    version = value.get("version")
    if not isinstance(version, str | None) or len(version or "") > MAX_VERSION:
        errors.append(FieldError("/version", f"expected a string of at most {MAX_VERSION} characters"))
    if errors:
        raise invalid(errors)
    count = sum(len(value.get(section) or {}) for section in SECTIONS)
    if count > MAX_DEFINITIONS:
        raise invalid_field(
            "",
            f"has more than {MAX_DEFINITIONS} definitions; split the document by section",
        )


class _Parser:
    """Parses definitions one after another, and collects their errors."""

    def __init__(self) -> None:
        self.refusals: list[Refusal] = []

    async def section(
        self, value: Mapping[str, Any], section: str, read: Callable[[str, Any], Any]
    ) -> dict[str, Any] | None:
        given = value.get(section)
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
