"""The application: the routes, the documents that describe them, and the ASGI shell around both."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.routing import BaseRoute, Route

from app.api import (
    actions,
    audit,
    batches,
    bulk,
    definitions,
    handlers,
    keys,
    leases,
    limits,
    llms,
    openapi,
    operations,
    overview,
    queues,
    schedules,
    sources,
    tasks,
)
from app.api.docs import docs_page
from app.api.enqueue import PATH, EnqueueEndpoint
from app.edge import errors
from app.edge.asgi import Edge, Shortcut
from app.edge.config import EdgeConfig
from app.edge.replies import json_reply
from app.runtime.core import Core


def create_app(core: Core, edge: EdgeConfig, pages: Sequence[BaseRoute] = ()) -> Edge:
    """Build the application. `pages` are the routes of the pages for people."""
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
    application.state.audited = audit.AUDITED
    application.state.large = bulk.places()
    enqueue = None if edge.operations_only else EnqueueEndpoint(core, edge)
    routers = [operations.health_router, operations.status_router, operations.metrics_router]
    if enqueue is not None:
        routers += [
            handlers.router,
            queues.router,
            overview.router,
            leases.pull_router,
            leases.holder_router,
            leases.complete_router,
            tasks.router,
            actions.router,
            batches.filling_router,
            batches.router,
            schedules.bytes_router,
            schedules.router,
            sources.router,
            limits.router,
            limits.tenant_router,
            definitions.router,
            audit.router,
            keys.router,
        ]
        application.router.routes.append(Route(PATH, enqueue, methods=["POST"]))
        application.router.routes.append(
            Route(bulk.PATH, bulk.BulkEndpoint(core, edge, application.state.large), methods=["POST"])
        )
    application.router.routes.extend(pages)
    for router in routers:
        application.include_router(router)
    declared = [route for router in routers for route in router.routes]
    _add_documents(application, edge, declared, tasks=enqueue is not None)
    routes = [*application.routes, *declared]
    errors.install(application, errors.AllowedMethods(route for route in routes if hasattr(route, "path_regex")))
    shortcut = None if enqueue is None or edge.tracing else Shortcut(PATH, enqueue.enqueue)
    paths = {route.endpoint: route.path for route in application.routes if type(route) is Route}
    return Edge(
        application,
        guarded=edge.anonymous is not None,
        shortcut=shortcut,
        paths=paths,
        request_meter=edge.request_meter,
    )


def _add_documents(application: FastAPI, edge: EdgeConfig, declared: Sequence[BaseRoute], *, tasks: bool) -> None:
    """Add the public documentation routes, which are not part of the schema themselves."""
    made: dict[str, Any] = {}
    encoded: list[bytes] = []

    def schema() -> Mapping[str, Any]:
        if not made:
            secured = edge.anonymous is None
            url = edge.public_url or "/"
            made.update(openapi.document(application, declared, tasks=tasks, secured=secured, url=url))
        return made

    async def openapi_json(_request: Request) -> Response:
        if not encoded:
            encoded.append(msgspec.json.encode(schema()))
        return json_reply(encoded[0])

    async def docs(_request: Request) -> Response:
        return docs_page()

    application.openapi = lambda: dict(schema())  # type: ignore[method-assign]
    application.router.routes += [Route("/openapi.json", openapi_json), Route("/docs", docs), *llms.routes()]
