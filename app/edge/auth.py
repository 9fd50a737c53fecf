"""Authentication: the caller of a bearer key, or the only caller when authentication is off."""

from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.dependencies.models import Dependant
from fastapi.security import HTTPBearer
from starlette.types import Scope

from app.domain.callers import Caller
from app.domain.errors import Refusal
from app.edge.admission import Hold
from app.edge.config import EdgeConfig
from app.edge.request_ids import request_id_of
from app.runtime.core import Core

MAX_TOKEN = 200


async def caller_of(edge: EdgeConfig, scope: Scope, authorization: str | None) -> Caller:
    """Return the caller, whose share pays for the request from now on. Raises Refusal: unauthenticated, unavailable."""
    caller = await verified(edge, authorization)
    hold: Hold | None = scope.get("hold")
    if hold is not None:
        hold.enter(caller.tenant_id)
    return caller


async def verified(edge: EdgeConfig, authorization: str | None) -> Caller:
    """Return the caller. Raises Refusal: unauthenticated, unavailable."""
    if edge.anonymous is not None:
        return await edge.anonymous()
    return await edge.authenticate(_token(authorization))


def with_origin(caller: Caller, scope: Scope) -> Caller:
    """Return the caller with where its request came from, for the audit."""
    client = scope.get("client")
    return replace(caller, address=client[0] if client else None, request_id=request_id_of(scope))


def _token(authorization: str | None) -> str:
    if authorization is None:
        raise Refusal("unauthenticated", "the request has no API key; send Authorization: Bearer slk_…")
    scheme, _, token = authorization.strip().partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token.startswith("slk_") or len(token) > MAX_TOKEN:
        raise Refusal("unauthenticated", "the Authorization header must be: Bearer slk_…")
    return token


async def core_of(request: Request) -> Core:
    core: Core = request.app.state.core
    return core


# Only for the OpenAPI document: caller_of reads the header itself and has better messages.
_BEARER = HTTPBearer(
    auto_error=False, bearerFormat="slk_<id>_<secret>", description="An API key from `sluice keys create`."
)


class Asks:
    """A dependency on the caller that requires a scope."""

    def __init__(self, scope: str) -> None:
        self.scope = scope

    async def __call__(self, request: Request, _bearer: Annotated[object, Security(_BEARER)]) -> Caller:
        found: Caller = request.state.caller  # StrictRoute authenticated it before reading the body
        found.require(self.scope)
        return found


def scope_of(dependant: Dependant) -> str:
    """Return the scope that a route requires."""
    return next((part.call.scope for part in dependant.dependencies if isinstance(part.call, Asks)), "use")


CoreDep = Annotated[Core, Depends(core_of)]
Reader = Annotated[Caller, Depends(Asks("read"))]
User = Annotated[Caller, Depends(Asks("use"))]
Manager = Annotated[Caller, Depends(Asks("manage"))]
Operator = Annotated[Caller, Depends(Asks("operate"))]
