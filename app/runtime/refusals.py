"""Refused calls that leave no row of their own in the audit, so that no key can fill it with them.

The first MOST refused calls of a key in a minute leave a row each. The others are counted here: when the minute is over, one row
per verb, noun and code says how many there were.
"""

import time
from dataclasses import dataclass, field, replace

from app.domain.callers import Caller
from app.store import audit
from app.store.audit import Refused
from app.store.db import Database

MOST = 60
MINUTE_SECONDS = 60.0


@dataclass(slots=True)
class _Minute:
    began: float = field(default_factory=time.monotonic)
    recorded: int = 0
    further: dict[tuple[str, str, str], Refused] = field(default_factory=dict)
    """By verb, noun and code."""

    def add(self, refused: Refused) -> None:
        act = refused.caller.act
        assert act is not None, "its verb is not audited"
        kind = act.verb, act.noun, refused.code
        known = self.further.get(kind, refused._replace(calls=0))
        self.further[kind] = known._replace(calls=known.calls + refused.calls)


class Refusals:
    """What one replica has counted, by tenant and key."""

    def __init__(self) -> None:
        self._minutes: dict[tuple[int, str | None], _Minute] = {}

    def has_room(self, caller: Caller, code: str) -> bool:
        """Return whether this refused call leaves a row of its own; if not, it has been counted."""
        minute = self._minutes.setdefault((caller.tenant_id, caller.key_id), _Minute())
        if minute.recorded < MOST:
            minute.recorded += 1
            return True
        assert caller.act is not None, "its verb is not audited"
        unnamed = replace(caller, act=replace(caller.act, name=None), address=None, request_id=None)
        minute.add(Refused(unnamed, code, 1))
        return False

    async def note(self, db: Database, *, now: bool = False) -> None:
        """Record what was counted in minutes that are over; with `now`, all of it. Raises Unavailable, and then keeps it."""
        began = time.monotonic() - MINUTE_SECONDS
        over = {key: minute for key, minute in self._minutes.items() if now or minute.began <= began}
        for key in over:
            del self._minutes[key]
        try:
            await audit.record_refusals(
                db, [refused for minute in over.values() for refused in minute.further.values()]
            )
        except BaseException:
            for key, minute in over.items():
                kept = self._minutes.setdefault(key, minute)
                for refused in minute.further.values() if kept is not minute else ():
                    kept.add(refused)
            raise
