"""Who is asking: a bearer key's caller, or the one caller there is when authentication is off."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from app.api.config import EdgeConfig
from app.domain.errors import Refusal
from app.service.context import Caller, Core

MAX_TOKEN = 200


async def caller_of(edge: EdgeConfig, authorization: str | None) -> Caller:
    if edge.anonymous is not None:
        return await edge.anonymous()
    if authorization is None:
        raise Refusal("unauthenticated", "the request carries no key: Authorization: Bearer slk_…")
    scheme, _, token = authorization.strip().partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token.startswith("slk_") or len(token) > MAX_TOKEN:
        raise Refusal("unauthenticated", "Authorization must be: Bearer slk_…")
    return await edge.authenticate(token)


async def core_of(request: Request) -> Core:
    core: Core = request.app.state.core
    return core


# Only for the OpenAPI document: the header itself is read by caller_of, which has better words for its faults.
_BEARER = HTTPBearer(
    auto_error=False, bearerFormat="slk_<id>_<secret>", description="A key made by `sluice keys create`."
)


def _with_scope(scope: str) -> Callable[[Request, object], Awaitable[Caller]]:
    async def caller(request: Request, _bearer: Annotated[object, Security(_BEARER)]) -> Caller:
        found: Caller = request.state.caller  # StrictRoute has asked before it read the body
        found.require(scope)
        return found

    return caller


CoreDep = Annotated[Core, Depends(core_of)]
User = Annotated[Caller, Depends(_with_scope("use"))]
Manager = Annotated[Caller, Depends(_with_scope("manage"))]
Operator = Annotated[Caller, Depends(_with_scope("operate"))]
