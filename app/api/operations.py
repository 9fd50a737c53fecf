"""Health, status and metrics, for operators and load balancers."""

from fastapi import APIRouter, Request, Response

from app.api.models.operations import HealthOut, StatusOut
from app.domain.errors import Refusal
from app.edge.auth import Operator, caller_of
from app.edge.config import EdgeConfig
from app.edge.errors import problem
from app.edge.problems import problems
from app.edge.replies import reply
from app.edge.strict import OpenRoute, StrictRoute
from app.telemetry.exposition import CONTENT_TYPE

health_router = APIRouter(prefix="/health", tags=["operations"], route_class=OpenRoute)
status_router = APIRouter(tags=["operations"], route_class=StrictRoute)
metrics_router = APIRouter(tags=["operations"], route_class=OpenRoute)


def _edge(request: Request) -> EdgeConfig:
    edge: EdgeConfig = request.app.state.edge
    return edge


def _health(why_not: str | None) -> Response:
    if why_not is not None:
        return problem(Refusal("unavailable", why_not))
    return reply(HealthOut("ok"))


@health_router.get("/live", operation_id="get_liveness", responses=problems(shows=HealthOut, key=False))
async def get_liveness(request: Request) -> Response:
    """Return 200 unless the process should be restarted. Never touches the database."""
    return _health(_edge(request).operations.why_not_live())


@health_router.get("/ready", operation_id="get_readiness", responses=problems(shows=HealthOut, key=False))
async def get_readiness(request: Request) -> Response:
    """Return 200 if the replica can take requests: it has been connected, its schema is compatible, and it is not draining."""
    return _health(_edge(request).operations.why_not_ready())


@status_router.get("/status", operation_id="get_status", responses=problems(shows=StatusOut))
async def get_status(request: Request, caller: Operator) -> Response:
    """Read version, replicas, queues and database, over all tenants."""
    return reply(await _edge(request).operations.status())


@metrics_router.get(
    "/metrics",
    operation_id="get_metrics",
    response_class=Response,
    openapi_extra={"security": [{"HTTPBearer": []}]},
    responses=problems(
        also={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus text format."}
        }
    ),
)
async def get_metrics(request: Request) -> Response:
    """Read metrics for Prometheus, over all tenants."""
    edge = _edge(request)
    if not edge.metrics_open:
        caller = await caller_of(edge, request.scope, request.headers.get("authorization"))
        caller.require("operate")
    return Response(await edge.operations.metrics(), media_type=CONTENT_TYPE)
