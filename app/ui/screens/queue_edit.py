"""Editing the definition of a queue: by fields, or whole as JSON. It is saved only over what the form has shown."""

from typing import Any

import msgspec
from msgspec import structs
from starlette.responses import Response

from app.domain.bodies import read
from app.domain.conditions import Conditions
from app.domain.errors import Refusal, invalid_field
from app.domain.ijson import parse_ijson
from app.domain.queues import QueueBody, QueueDefinition, QueueView, queue_to_dict
from app.domain.schemas.rules import schema_value
from app.service import queues
from app.ui.forms import Edit, Field, encoded, faults_of, flattened, put_at, texts_of, was_of, yours_of
from app.ui.visits import Visit

PACE, RETRIES, KEPT = "How much at once", "Attempts", "How long ended tasks are kept"
BACKOFF = (
    Field("min_seconds", "Backoff from, in seconds", ("retry", "backoff", "min_seconds"), "number", "1", RETRIES),
    Field("max_seconds", "Backoff to, in seconds", ("retry", "backoff", "max_seconds"), "number", "3600", RETRIES),
)
FIELDS = (
    Field("description", "Description", ("description",), group="Queue"),
    Field("handler", "Handler", ("handler",), hint="none: for pull workers", group="Queue"),
    Field("max_concurrency", "Running at once", ("max_concurrency",), "integer", "no limit", PACE),
    Field("max_depth", "Waiting at most", ("max_depth",), "integer", "no limit", PACE),
    Field("rate_limit", "Starting at most", ("rate", "limit"), "number", "no rate", PACE),
    Field("rate_period", "… in so many seconds", ("rate", "period_seconds"), "number", "1", PACE),
    Field("max_attempts", "Attempts at most", ("retry", "max_attempts"), "integer", "25", RETRIES),
    Field("timeout_seconds", "Timeout in seconds", ("timeout_seconds",), "number", "the handler's", RETRIES),
    *BACKOFF,
    Field("succeeded_days", "Succeeded, in days", ("retention", "succeeded_days"), "integer", "3", KEPT),
    Field("cancelled_days", "Cancelled, in days", ("retention", "cancelled_days"), "integer", "3", KEPT),
    Field("dead_days", "Dead, in days", ("retention", "dead_days"), "integer", "30", KEPT),
)
JSON = (Field("json", "Definition", (), "long"),)


async def ask(visit: Visit) -> Response:
    visit.caller.require("manage")
    view, etag = await queues.get(visit.core, visit.caller, visit.name("queue"))
    return _form(visit, view, etag, _shown(view, whole=visit.query("as") == "json"))


async def save(visit: Visit) -> Response:
    name, whole = visit.name("queue"), "json" in visit.form
    view, etag = await queues.get(visit.core, visit.caller, name)
    edit = _edit(visit, view, whole=whole)
    shown = {"json": visit.form["json"]} if whole else edit.merged
    try:
        if visit.form.get("etag") == etag:
            definition = _definition(view, edit.changed, whole=visit.form.get("json"))
            await queues.put(visit.core, visit.caller, name, definition, Conditions((etag,)))
            return visit.redirect("queues", name, notice="queue-saved")
    except Refusal as refusal:
        if refusal.code not in ("invalid", "malformed", "encryption_unavailable", "etag_mismatch"):
            raise
        if refusal.code != "etag_mismatch":
            return _form(visit, view, etag, shown, 422, was=edit.was, refusal=refusal)
        view, etag = await queues.get(visit.core, visit.caller, name)
        edit = _edit(visit, view, whole=whole)
        shown = shown if whole else edit.merged
    return _form(visit, view, etag, shown, 412, differences=edit.differences)


def _fields(definition: QueueDefinition) -> list[Field]:
    return [one for one in FIELDS if one not in BACKOFF or definition.retry.backoff.kind == "exponential"]


def _shown(view: QueueView, *, whole: bool) -> dict[str, str]:
    document = queue_to_dict(view.definition)
    if whole:
        return {"json": msgspec.json.format(msgspec.json.encode(document), indent=2).decode()}
    return texts_of(_fields(view.definition), document)


def _edit(visit: Visit, view: QueueView, *, whole: bool) -> Edit:
    if whole:
        now = flattened(queue_to_dict(view.definition))
        return Edit(now, now, _flat(visit.form["json"]))
    names = {one.name: one.words for one in FIELDS}
    return Edit(was_of(visit.form), _shown(view, whole=False), yours_of(visit.form, _fields(view.definition)), names)


def _flat(text: str) -> dict[str, str]:
    try:
        return flattened(parse_ijson(text.encode()))
    except Refusal:
        return {"": text}


def _definition(view: QueueView, changed: dict[str, str], *, whole: str | None) -> QueueDefinition:
    """Return the definition that a form asks for. Raises Refusal: invalid, malformed."""
    present = queue_to_dict(view.definition)
    if whole is not None:
        document = parse_ijson(whole.encode())
    else:
        document = dict(present)
        for one in FIELDS:
            if one.name in changed:
                put_at(document, one.at, one.value_of(changed[one.name]))
        if not (document.get("rate") or {}).get("limit"):
            if (document.get("rate") or {}).get("period_seconds") and "rate_period" in changed:
                raise invalid_field("/rate/limit", "is required for a rate")
            document.pop("rate", None)
    body = read(document, QueueBody)
    definition = body.definition()
    if body.payload_schema == schema_value(view.definition.payload_schema):
        # as it was written: JSON that was read and written again may look different
        return structs.replace(definition, payload_schema=view.definition.payload_schema)
    return definition


def _form(visit: Visit, view: QueueView, etag: str, shown: dict[str, str], status: int = 200, **more: Any) -> Response:
    whole = "json" in shown
    fields = JSON if whole else _fields(view.definition)
    refusal: Refusal | None = more.pop("refusal", None)
    faults, others = ({}, []) if refusal is None else faults_of(refusal, fields)
    was = more.pop("was", None) or _shown(view, whole=False)
    return visit.page(
        "queue_edit.html",
        status,
        here="queues",
        view=view,
        etag=etag,
        whole=whole,
        fields=fields,
        given=shown,
        was=None if whole else encoded(was),
        faults=faults,
        others=others,
        differences=more.get("differences", []),
    )
