"""The audit: every verb that changes something is `audited`, and leaves a row.

The row of a change is written by the verb (`record`), in the transaction of the change: either both are there or neither. That of a
refused call is written here, because a refusal rolls the transaction back.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Concatenate, Generic, ParamSpec, TypeVar

from app.domain.callers import Act, Caller
from app.domain.errors import Refusal
from app.runtime.core import Core
from app.store import audit
from app.store.audit import AuditFilters, AuditRow, Position, record
from app.store.failures import Unavailable
from app.telemetry import events
from app.telemetry.logs import get_logger

__all__ = ["Audited", "audited", "list_page", "record"]

P = ParamSpec("P")
R = TypeVar("R", covariant=True)

UNDECIDED = frozenset({"unavailable", "internal"})
"""Codes of calls about which nothing was decided, so they leave no row."""

log = get_logger(__name__)


class Audited(Generic[P, R]):
    """A verb that leaves a row in the audit. What it is called with says who called, and from now on (`act`) what for."""

    def __init__(
        self, verb: str, noun: str, parts: int, run: Callable[Concatenate[Core, Caller, P], Awaitable[R]]
    ) -> None:
        self.verb = verb
        self.noun = noun
        self._parts = parts
        self._run = run
        self.__doc__ = run.__doc__

    async def __call__(self, core: Core, caller: Caller, *args: P.args, **kwargs: P.kwargs) -> R:
        name = "/".join(str(part) for part in args[: self._parts]) if self._parts else None
        acting = replace(caller, act=Act(self.verb, self.noun, name, core.replica.name))
        try:
            return await self._run(core, acting, *args, **kwargs)
        except Refusal as refusal:
            await _note(core, acting, refusal)
            raise

    async def refused(self, core: Core, caller: Caller, name: str | None, refusal: Refusal) -> None:
        """Record a call that was refused before it reached the verb, unless the verb has recorded it."""
        await _note(core, replace(caller, act=Act(self.verb, self.noun, name, core.replica.name)), refusal)


def audited(
    verb: str, noun: str, *, parts: int = 1
) -> Callable[[Callable[Concatenate[Core, Caller, P], Awaitable[R]]], Audited[P, R]]:
    """Declare what a verb of the service does, for the audit: its arguments after the caller begin with the name of what it
    changes, in as many `parts`. The verb must call `record`."""
    return lambda run: Audited(verb, noun, parts, run)


async def _note(core: Core, acting: Caller, refusal: Refusal) -> None:
    if refusal.recorded or refusal.code in UNDECIDED:
        return
    refusal.recorded = True
    if not core.refusals.has_room(acting, refusal.code):
        return
    try:
        await audit.record_refusal(core.db.changes(acting.tenant_id), acting, refusal.code)
    except Unavailable as error:
        act = acting.act
        assert act is not None
        events.emit(
            log,
            events.REFUSAL_NOT_RECORDED,
            tenant=acting.tenant,
            verb=act.verb,
            noun=act.noun,
            code=refusal.code,
            error=str(error),
        )


async def list_page(
    core: Core, caller: Caller, filters: AuditFilters, before: Position | None, limit: int
) -> tuple[list[AuditRow], Position | None]:
    """Return rows, newest first, before a position, and the next position, None after the last: of the caller's tenant, with scope
    operate of all."""
    caller.require("manage")
    caller.require_tenant()
    tenant_id = None if caller.may("operate") else caller.tenant_id
    return await audit.list_page(core.db.reads(caller.tenant_id), tenant_id, filters, before, limit)
