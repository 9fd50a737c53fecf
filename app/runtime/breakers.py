"""Handlers that suffer: how their health changes.

Whoever finds that time or calls have changed a handler's health takes the handler's exclusive lock, reads again, decides again and
writes. So of several that see the same only the first changes it, and from the commit on no claim admits anything under the state
before.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from app.domain.breakers import Guard, Health, Seen, advance, effective, fitted, judge_probe
from app.domain.callers import Act
from app.runtime.core import Core
from app.runtime.signals import ConcurrencySlot
from app.store import audit, breakers, handlers
from app.store.breakers import HandlerHealth
from app.store.db import Reader
from app.telemetry import events
from app.telemetry.logs import get_logger

Decision = Callable[[Health, Guard, Seen, datetime], Health]

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Changed:
    """A change of a handler's health. Announce it once it is committed."""

    found: HandlerHealth
    after: Health


async def advanced(core: Core, handler_id: int) -> None:
    """Write what time and calls have changed."""
    await _change(core, handler_id, advance)


async def probed(core: Core, handler_id: int, period: int, *, ok: bool) -> None:
    """Write what the probe of a half-open period has shown."""
    await _change(core, handler_id, partial(judge_probe, period=period, ok=ok))


async def _change(core: Core, handler_id: int, decide: Decision) -> None:
    """Not on the connections for definitions, because deliveries wait."""
    async with core.db.transaction() as connection:
        await handlers.lock(connection, handler_id)
        changed = await change(connection, handler_id, decide)
        if changed is not None:
            await _record(connection, changed, core.replica.name)
    announce(core, changed)


async def _record(connection: Reader, changed: Changed, replica: str) -> None:
    """Record that a breaker has opened, or closed again."""
    found, after = changed.found, changed.after.state
    if after != found.health.state and after != "half_open":
        act = Act("set_breaker", "handler", found.name, replica)
        was, now = {"breaker": found.health.state}, {"breaker": after}
        await audit.record_by("system", connection, found.tenant_id, act, was, now)


async def change(connection: Reader, handler_id: int, decide: Decision) -> Changed | None:
    """Change the health of a handler whose exclusive lock is held; return None if nothing changes."""
    found = await breakers.read(connection, handler_id)
    if found is None:
        return None
    after = decide(found.health, found.guard, found.seen, found.at)
    if after == found.health:
        return None
    await breakers.write(connection, handler_id, after)
    return Changed(found, after)


async def fit(connection: Reader, handler_id: int, guard: Guard) -> None:
    """Begin, adjust or end the health of a handler whose definition has changed and whose exclusive lock is held."""
    if not guard.on:
        await breakers.forget(connection, handler_id)
        return
    found = await breakers.read(connection, handler_id)
    if found is None:
        await breakers.write(connection, handler_id, Health())
        found = await breakers.read(connection, handler_id)
    assert found is not None, "its lock is held"
    await breakers.write(connection, handler_id, fitted(found.health, guard, found.at))


def announce(core: Core, changed: Changed | None) -> None:
    """Wake whoever may claim more, and log what operators need."""
    if changed is None:
        return
    found, before, after = changed.found, changed.found.health, changed.after
    was, now = effective(before), effective(after)
    if now is None or (was is not None and now > was):
        core.signals.slot_freed(ConcurrencySlot(found.tenant_id, found.handler_id, 0))
    fields = {"tenant": found.tenant, "handler": found.name}
    if after.period != before.period:
        if after.state == "open":
            counts = {"calls": found.seen.calls, "failures": found.seen.failures}
            events.emit(log, events.BREAKER_OPENED, open_seconds=after.open_seconds or None, **counts, **fields)
        elif after.state == "half_open":
            events.emit(log, events.BREAKER_HALF_OPENED, **fields)
        else:
            events.emit(log, events.BREAKER_CLOSED, **fields)
    if after.limit is not None and before.limit is not None and after.limit < before.limit:
        events.emit(log, events.CONCURRENCY_LOWERED, before=before.limit, after=after.limit, **fields)
