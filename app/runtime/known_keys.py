"""API keys that this replica has asked the database about."""

import asyncio
from dataclasses import dataclass, field

from app.domain.callers import Caller


@dataclass(slots=True)
class KnownKeys:
    """Keys found good a moment ago, and those being asked about: each is asked about once at a time."""

    callers: dict[str, tuple[float, Caller]] = field(default_factory=dict, repr=False)
    """By token: until when (monotonic seconds) it is taken as good without asking, and for whom."""
    questions: dict[str, "asyncio.Task[Caller]"] = field(default_factory=dict, repr=False)
