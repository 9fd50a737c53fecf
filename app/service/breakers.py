"""Verbs on the health of handlers: see it, and open or close a breaker by hand."""

from dataclasses import dataclass
from datetime import datetime

from app.domain.breakers import Guard, Health, Seen, closed, opened
from app.domain.callers import Caller
from app.domain.errors import FieldError, invalid
from app.runtime import breakers
from app.runtime.core import Core
from app.service.audit import audited, record
from app.service.handlers import id_of, locked, not_found
from app.store import breakers as store
from app.store import handlers
from app.store.breakers import HandlerHealth


@dataclass(frozen=True, slots=True)
class ShownHealth:
    """A handler and what is known of it: nothing (`found` is None) without a breaker or an adaptive limit."""

    name: str
    guard: Guard
    parked_until: datetime | None
    """None if it is not parked now."""
    found: HandlerHealth | None


async def get(core: Core, caller: Caller, name: str) -> ShownHealth:
    """Return a handler's health. Raises Refusal (handler_not_found)."""
    caller.require("read")
    reads = core.db.reads(caller.tenant_id)
    handler_id = await id_of(reads, caller, name)
    row = None if handler_id is None else await handlers.read(reads, core.vault, handler_id)
    if row is None:
        raise not_found(name)
    found = await store.read(reads, row.id)
    parked = row.view.parked_until
    if parked is not None and parked <= core.clock.now():
        parked = None
    return ShownHealth(name, row.view.definition.guard, parked, found)


@audited("set_breaker", "handler")
async def set_breaker(core: Core, caller: Caller, name: str, *, to_open: bool) -> ShownHealth:
    """Open a breaker until it is closed by hand, or close it with a slow start. Raises Refusal: handler_not_found, invalid."""
    caller.require("manage")

    def decide(health: Health, guard: Guard, seen: Seen, now: datetime) -> Health:
        if to_open:
            by_hand = health.state == "open" and health.probe_at is None
            return health if by_hand else opened(health, now, seconds=None, running=seen.running)
        return health if health.state == "closed" else closed(health, guard, now)

    async with core.db.begin(caller.tenant_id) as connection:
        row = await locked(core, connection, caller, name)
        if row.view.definition.breaker is None:
            detail = f"handler {name} has no breaker; disable it instead, or PUT it with one"
            raise invalid([FieldError("", detail)])
        changed = await breakers.change(connection, row.id, decide)
        before, after = ("open", "open") if to_open else ("closed", "closed")
        if changed is not None:
            before, after = changed.found.health.state, changed.after.state
        await record(connection, caller, {"breaker": before}, {"breaker": after})
    breakers.announce(core, changed)
    return await get(core, caller, name)
