"""API keys that this replica has verified recently."""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import datetime

from app.domain.callers import Caller
from app.store import keys
from app.store.db import Database

NOTE_SECONDS = 20.0
"""How often uses are recorded: `last_used_at` is true to the minute."""


@dataclass(frozen=True, slots=True)
class Signer:
    """An access key that was found a moment ago."""

    caller: Caller
    secrets: tuple[str, ...] = field(repr=False)
    """Two during a rotation."""


@dataclass(slots=True)
class KnownKeys:
    """Keys verified a moment ago, and those being verified: each is checked once at a time."""

    callers: dict[str, tuple[float, Caller]] = field(default_factory=dict, repr=False)
    """Token -> (until when it is trusted without a check, in monotonic seconds, and its caller)."""
    questions: dict[str, "asyncio.Task[Caller]"] = field(default_factory=dict, repr=False)
    signers: dict[str, tuple[float, Signer]] = field(default_factory=dict, repr=False)
    """Access key id -> (until when it is trusted without a check, in monotonic seconds, and whose it is)."""
    signer_questions: dict[str, "asyncio.Task[Signer]"] = field(default_factory=dict, repr=False)
    used: dict[str, datetime] = field(default_factory=dict)
    """Id -> when it was verified last; only of keys whose use has not been recorded since."""
    noted_at: float = field(default_factory=time.monotonic)

    async def note(self, db: Database, *, now: bool = False) -> None:
        """Record which keys were used: every NOTE_SECONDS, or now. A key in use is verified every second, which is noted in memory,
        so no request writes anything."""
        if not self.used or (not now and time.monotonic() - self.noted_at < NOTE_SECONDS):
            return
        self.noted_at = time.monotonic()
        uses, self.used = self.used, {}
        try:
            await keys.note_uses(db, uses)
        except BaseException:
            self.used = uses | self.used
            raise
