"""The edge: one ASGI callable around the FastAPI application.

It guards the host when authentication is off, answers what the application could not, and takes the enqueue, which is
the greater part of all requests, straight to its endpoint.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from app.api import batches, bulk, definitions, handlers, leases, limits, openapi, operations, queues, schedules, tasks
from app.api.docs import docs_page
from app.api.enqueue import PATH, EnqueueEndpoint
from app.domain.errors import Refusal
from app.domain.names import is_name
from app.edge import errors
from app.edge.body import closing_unless_read, hold_of
from app.edge.config import EdgeConfig
from app.edge.headers import read_headers
from app.edge.hosts import require_loopback
from app.edge.replies import json_reply
from app.runtime.core import Core
from app.telemetry.events import REQUEST_FAILED, emit
from app.telemetry.logs import get_logger

_PREFIX, _SUFFIX = PATH.split("{name}")
log = get_logger("app.api")


class Edge:
    """What a server is given. `application` is the FastAPI app inside, for instrumentation."""

    def __init__(self, application: FastAPI, enqueue: EnqueueEndpoint | None, edge: EdgeConfig) -> None:
        self.application = application
        self._enqueue = enqueue
        self._guarded = edge.anonymous is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            raise RuntimeError(f"the edge serves HTTP, not {scope['type']}")

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noting_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        hold = hold_of(scope)
        if hold is not None and hold.expects:
            receive, send = closing_unless_read(receive, send)
        try:
            await self._dispatch(scope, receive, noting_send)
        except Refusal as refusal:
            await errors.problem(refusal)(scope, receive, send)
        except ClientDisconnect:
            return
        except Exception:
            self._say_failed(scope)
            if not started:
                await errors.problem(errors.INTERNAL)(scope, receive, send)
        finally:
            if hold is not None:
                hold.release()

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = read_headers(scope["headers"])
        if self._guarded:
            require_loopback(headers)
        if b"host" not in headers and scope["http_version"] == "1.1":
            raise Refusal("malformed", "the request has no Host header")
        if scope["method"] == "POST" and self._enqueue is not None:
            path: str = scope["path"]
            if path.startswith(_PREFIX) and path.endswith(_SUFFIX):
                queue = path[len(_PREFIX) : -len(_SUFFIX)]
                if is_name(queue):
                    await self._enqueue.enqueue(queue, headers, scope, receive, send)
                    return
        elif scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # the server leaves the body of the answer out
        await self.application(scope, receive, send)

    def _say_failed(self, scope: Scope) -> None:
        route = getattr(scope.get("route"), "path", PATH if scope["path"].endswith(_SUFFIX) else "")
        emit(log, REQUEST_FAILED, method=scope["method"], route=route, code="internal", exc_info=True)


def create_app(core: Core, edge: EdgeConfig) -> Edge:
    application = FastAPI(
        title=openapi.TITLE,
        version=edge.version,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    application.state.core = core
    application.state.edge = edge
    application.state.large = bulk.places()
    enqueue = None if edge.operations_only else EnqueueEndpoint(core, edge)
    routers = [operations.health_router, operations.status_router, operations.metrics_router]
    if enqueue is not None:
        routers += [
            handlers.router,
            queues.router,
            leases.pull_router,
            leases.holder_router,
            leases.complete_router,
            tasks.router,
            batches.filling_router,
            batches.router,
            schedules.bytes_router,
            schedules.router,
            limits.router,
            limits.tenant_router,
            definitions.router,
        ]
        application.router.routes.append(Route(PATH, enqueue, methods=["POST"]))
        application.router.routes.append(
            Route(bulk.PATH, bulk.BulkEndpoint(core, edge, application.state.large), methods=["POST"])
        )
    for router in routers:
        application.include_router(router)
    _add_documents(application, edge, tasks=enqueue is not None)
    routes = [*application.routes, *(route for router in routers for route in router.routes)]
    errors.install(application, errors.AllowedMethods(route for route in routes if hasattr(route, "path_regex")))
    return Edge(application, None if edge.tracing else enqueue, edge)


def _add_documents(application: FastAPI, edge: EdgeConfig, *, tasks: bool) -> None:
    """Open to all, and in no schema: they are the schema."""
    made: dict[str, Any] = {}
    encoded: list[bytes] = []

    def schema() -> Mapping[str, Any]:
        if not made:
            secured = edge.anonymous is None
            made.update(openapi.document(application, tasks=tasks, secured=secured, url=edge.public_url or "/"))
        return made

    async def openapi_json(_request: Request) -> Response:
        if not encoded:
            encoded.append(msgspec.json.encode(schema()))
        return json_reply(encoded[0])

    async def docs(_request: Request) -> Response:
        return docs_page()

    application.openapi = lambda: dict(schema())  # type: ignore[method-assign]
    application.router.routes += [Route("/openapi.json", openapi_json), Route("/docs", docs)]
