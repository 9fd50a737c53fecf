"""API keys that this replica has verified recently."""

import asyncio
from dataclasses import dataclass, field

from app.domain.callers import Caller


@dataclass(slots=True)
class KnownKeys:
    """Keys verified a moment ago, and those being verified: each is checked once at a time."""

    callers: dict[str, tuple[float, Caller]] = field(default_factory=dict, repr=False)
    """Token -> (until when it is trusted without a check, in monotonic seconds, and its caller)."""
    questions: dict[str, "asyncio.Task[Caller]"] = field(default_factory=dict, repr=False)
