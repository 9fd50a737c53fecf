"""The OpenAPI document: FastAPI's, with the operations of the plain ASGI routes added."""

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from app.api import bulk, enqueue
from app.api.models.bulk import BulkOut, RefusedOut, StoredOut
from app.api.models.definitions import ChangeOut
from app.domain.bulk import BulkBody
from app.domain.names import NAME_PATTERN
from app.domain.tasks import TaskBody
from app.domain.views import TaskView
from app.edge.declared import Shown, kinds_of, request_body, schemas_of
from app.edge.problems import header, problems
from app.edge.replies import Problem

TITLE = "Sluice"
DESCRIPTION = "Durable queues and schedules as a plain HTTP service on Postgres."
_FRAMEWORKS = ("HTTPValidationError", "ValidationError")
_LOCATION = {"Location": header("URL of the task.")}

_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "pattern": NAME_PATTERN}}
_TRACEPARENT = {
    "name": "traceparent",
    "in": "header",
    "required": False,
    "description": "W3C Trace Context, passed on to the handler.",
    "schema": {"type": "string"},
}

ENQUEUE: dict[str, Any] = {
    "tags": ["tasks"],
    "summary": "Enqueue Task",
    "description": "Enqueue a task. Acknowledged after commit.",
    "operationId": "enqueue_task",
    "security": [{"HTTPBearer": []}],
    "parameters": [
        _NAME,
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "Quoted or bare; equivalent to `idempotency_key` in the body.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        },
        _TRACEPARENT,
    ],
    "requestBody": request_body(TaskBody),
    "responses": {
        "200": Shown(
            TaskView,
            description="The first task with this idempotency key, or the unfinished one with this unique key, as it is now.",
            headers=_LOCATION
            | {
                "Idempotent-Replayed": header("`true` if the idempotency key matched."),
                "Unique-Held": header("`true` if the unique key matched."),
            },
        ),
        "201": Shown(TaskView, description="Enqueued.", headers=_LOCATION),
        **{
            str(status): response
            for status, response in problems(
                "queue_not_found", "idempotency_mismatch", "egress_denied", "queue_full", "key_full", body=True
            ).items()
        },
    },
}

BULK: dict[str, Any] = {
    "tags": ["tasks"],
    "summary": "Enqueue Tasks",
    "description": "Enqueue up to 10,000 tasks, in a body of at most 32 MiB. The answer has a result per task, in order.",
    "operationId": "enqueue_tasks",
    "security": [{"HTTPBearer": []}],
    "parameters": [_NAME, _TRACEPARENT],
    "requestBody": request_body(BulkBody),
    "responses": {
        "200": Shown(BulkOut, description="The result of each task."),
        **{str(status): response for status, response in problems("queue_not_found", body=True).items()},
    },
}


def document(app: FastAPI, declared: Iterable[BaseRoute], *, tasks: bool, secured: bool, url: str) -> dict[str, Any]:
    """The document.

    `declared`: the routes whose signatures name bodies. `tasks`: this application takes tasks. `secured`: it asks for keys.
    `url`: the base of its routes.
    """
    servers = [{"url": url}]
    found = get_openapi(title=TITLE, version=app.version, description=DESCRIPTION, routes=app.routes, servers=servers)
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    for name in _FRAMEWORKS:
        schemas.pop(name, None)
    taken: list[Any] = []
    shown: list[Any] = [Problem]
    if tasks:
        taken += [TaskBody, BulkBody]
        shown += [TaskView, BulkOut, StoredOut, RefusedOut, ChangeOut]
        found["paths"].setdefault(enqueue.PATH, {})["post"] = dict(ENQUEUE)
        found["paths"].setdefault(bulk.PATH, {})["post"] = dict(BULK)
    for route, body, answers in kinds_of(declared):
        shown += answers
        if body is not None:
            taken.append(body.kind)
            for method in route.methods or ():
                found["paths"][route.path_format][method.lower()]["requestBody"] = request_body(
                    body.kind, required=body.required, nullable=body.nullable
                )
    schemas |= schemas_of(taken, shown)
    if not secured:
        found["components"].pop("securitySchemes", None)
        for methods in found["paths"].values():
            for operation in methods.values():
                operation.pop("security", None)
    found["components"]["schemas"] = dict(sorted(schemas.items()))
    found["paths"] = dict(sorted(found["paths"].items()))
    return found
