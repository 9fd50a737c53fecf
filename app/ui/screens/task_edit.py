"""Editing a task that waits, and enqueueing a copy of one. What a payload says is sent on as its bytes stand in the form."""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from app.domain.errors import Refusal, invalid_field, task_ended
from app.domain.ijson import parse_ijson
from app.domain.patches import parse_patch
from app.domain.retries import MAX_ATTEMPTS
from app.domain.tasks import UNFINISHED, Enqueue, State, parse_enqueue
from app.domain.views import TaskView
from app.service import patches, tasks
from app.ui.forms import Edit, Field, encoded, faults_of, texts_of, was_of, yours_of
from app.ui.texts import text_of
from app.ui.visits import Visit

EDITABLE_BYTES = 65_536
"""Of a payload in a form: three times as many are sent."""
PAYLOAD = Field("payload", "Payload", ("payload",), "long")
COMMON = (
    Field("type", "Type", ("type",)),
    Field("priority", "Priority", ("priority",), "integer", "0"),
    Field("run_at", "Not before", ("run_at",), hint="now, or 2026-11-26T12:00:00Z"),
    Field("expires_at", "Expires at", ("expires_at",), hint="never, or 2026-11-26T13:00:00Z"),
)
EXACT = (
    Field("timeout_seconds", "Timeout in seconds", ("timeout_seconds",), "number"),
    Field("max_attempts", "Attempts at most", ("retry", "max_attempts"), "integer"),
)
LABELS = (
    Field("correlation_id", "Correlation id", ("correlation_id",)),
    Field("tags", "Tags, one per line", ("tags",), "lines"),
    Field("headers", "Headers, name: value", ("headers",), "headers"),
)
FIELDS = (*COMMON, *EXACT, *LABELS, PAYLOAD)
QUEUE = Field("queue", "Queue", ())
COPIED = (QUEUE, *COMMON, *LABELS, PAYLOAD)
WRONG = frozenset(
    {
        "invalid",
        "malformed",
        "egress_denied",
        "payload_schema_mismatch",
        "queue_not_found",
        "queue_full",
        "key_full",
        "too_large",
    }
)
"""Codes of what the form can be corrected for."""


async def ask(visit: Visit) -> Response:
    visit.caller.require("use")
    view = _editable(await tasks.get(visit.core, visit.caller, visit.id("task")))
    texts = _texts(view, FIELDS)
    return _form(visit, "task_edit.html", view, FIELDS, texts, was=encoded(texts))


async def save(visit: Visit) -> Response:
    view = _editable(await tasks.get(visit.core, visit.caller, visit.id("task")))
    names = {one.name: one.words for one in FIELDS}
    edit = Edit(was_of(visit.form), _texts(view, FIELDS), yours_of(visit.form, FIELDS), names)
    if edit.collides:
        now, found = encoded(edit.now), edit.differences
        return _form(visit, "task_edit.html", view, FIELDS, edit.merged, 412, was=now, differences=found)
    if not edit.changed:
        return visit.redirect("tasks", view.id)
    try:
        body = _patch(edit)
        patch = parse_patch(body, parse_ijson(body), visit.core.max_payload_bytes)
        await patches.update(visit.core, visit.caller, view.id, patch)
    except Refusal as refusal:
        if refusal.code not in WRONG:
            raise
        given, was = {**edit.was, **edit.yours}, encoded(edit.was)
        return _form(visit, "task_edit.html", view, FIELDS, given, 422, was=was, refusal=refusal)
    return visit.redirect("tasks", view.id, notice="task-saved")


async def ask_copy(visit: Visit) -> Response:
    visit.caller.require("use")
    view = _readable(await tasks.get(visit.core, visit.caller, visit.id("task")))
    texts = {**_texts(view, COPIED), "queue": view.queue, "run_at": "", "expires_at": ""}
    return _form(visit, "task_copy.html", view, COPIED, texts, once=visit.new_once())


async def copy(visit: Visit) -> Response:
    """Enqueue a copy. The same form, sent twice, enqueues one."""
    view = _readable(await tasks.get(visit.core, visit.caller, visit.id("task")))
    given = yours_of(visit.form, COPIED)
    queue = given.get("queue", "").strip()
    try:
        request = _copied(visit, view, given)
        made = await tasks.enqueue(visit.core, visit.caller, queue, request, None)
    except Refusal as refusal:
        if refusal.code not in WRONG:
            raise
        shown: dict[str, Any] = {"refusal": refusal, "once": visit.form.get("once", "")}
        return _form(visit, "task_copy.html", view, COPIED, given, 422, **shown)
    return visit.redirect("tasks", made.task_id, notice="task-copied")


def _editable(view: TaskView) -> TaskView:
    """Raises Refusal: task_not_editable, task_ended."""
    if view.state not in UNFINISHED:
        raise task_ended(view.state)
    if view.state == State.RUNNING:
        raise Refusal("task_not_editable", "the task is running, so what its handler was sent can no longer change")
    return view


def _readable(view: TaskView) -> TaskView:
    """Raises Refusal (forbidden)."""
    if view.content_hidden is True:
        raise Refusal("forbidden", "payloads are hidden from this key, so it cannot copy one")
    return view


def _texts(view: TaskView, fields: tuple[Field, ...]) -> dict[str, str]:
    """Return what the fields show, without the payload if it is hidden, not JSON, or too long for a form."""
    document = {name: getattr(view, name) for name in view.__struct_fields__}
    # messages of SQS clients may be received any number of times
    document["retry"] = {"max_attempts": view.max_attempts if view.max_attempts <= MAX_ATTEMPTS else None}
    found = texts_of((one for one in fields if one not in (PAYLOAD, QUEUE)), document)
    payload = None if view.payload is msgspec.UNSET or view.content_hidden is True else text_of(view.payload)
    if payload is not None and len(payload.encode()) <= EDITABLE_BYTES:
        found["payload"] = payload.replace("\r\n", "\n")
    return found


def _patch(edit: Edit) -> bytes:
    """Return the body of a PATCH that makes the changes. Raises Refusal (invalid)."""
    document: dict[str, Any] = {}
    for one in FIELDS:
        if one is PAYLOAD or one.name not in edit.changed:
            continue
        value = one.value_of(edit.changed[one.name])
        if one.name == "max_attempts":
            if value is None:
                raise invalid_field("/retry/max_attempts", "is required")
            document["retry"] = {"max_attempts": value}
        elif one.kind == "headers":
            before: dict[str, str] = one.value_of(edit.was.get(one.name, ""))
            document[one.name] = dict.fromkeys(before) | value
        else:
            document[one.name] = value
    return _with_payload(document, edit.changed.get("payload"))


def _copied(visit: Visit, view: TaskView, given: Mapping[str, str]) -> Enqueue:
    """Raises Refusal: invalid, too_large."""
    document: dict[str, Any] = {"content_type": view.content_type}
    for one in COPIED:
        value = one.value_of(given.get(one.name, ""))
        if one not in (PAYLOAD, QUEUE) and value not in (None, [], {}):
            document[one.name] = value
    if view.target is not None:
        document["target"] = view.target
    if view.key is not None:
        document["key"] = view.key
    if view.limits:
        document["limits"] = view.limits
    if view.payload_base64 is not msgspec.UNSET:
        document["payload_base64"] = view.payload_base64
        payload = None
    else:
        payload = given.get("payload", text_of(view.payload))
    body = _with_payload(document, payload)
    once = hashlib.sha256(body + given.get("queue", "").encode()).hexdigest()[:16]
    request = parse_enqueue(body, max_payload_bytes=visit.core.max_payload_bytes)
    return request if visit.once is None else request.with_key(f"{visit.once}-{once}")


def _with_payload(document: dict[str, Any], payload: str | None) -> bytes:
    """Return a JSON object with the payload as it stands. Raises Refusal (invalid) if that is not JSON by itself."""
    body = msgspec.json.encode(document)
    if payload is None:
        return body
    try:
        parse_ijson(payload.encode())
    except Refusal as refusal:
        raise invalid_field("/payload", refusal.detail.replace("body", "payload")) from None
    return body[:-1] + (b"," if document else b"") + b'"payload":' + payload.encode() + b"}"


def _form(
    visit: Visit,
    template: str,
    view: TaskView,
    fields: tuple[Field, ...],
    given: Mapping[str, str],
    status: int = 200,
    **more: Any,
) -> Response:
    refusal: Refusal | None = more.pop("refusal", None)
    faults, others = ({}, []) if refusal is None else faults_of(refusal, fields)
    if refusal is not None and refusal.code == "queue_not_found":
        faults, others = {"queue": refusal.detail}, []
    shown = [one for one in fields if one is not PAYLOAD or "payload" in given]
    more = {"was": None, "once": None, "differences": [], **more}
    return visit.page(
        template, status, here="tasks", view=view, fields=shown, given=given, faults=faults, others=others, **more
    )
