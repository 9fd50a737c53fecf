"""How long to wait before the next attempt."""

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["exponential", "fixed", "list"]
Jitter = Literal["full", "equal", "none"]


@dataclass(frozen=True, slots=True)
class Backoff:
    """A backoff of one kind. `seconds` is for `fixed` (a number) and `list` (several); the other fields are for `exponential`."""

    kind: Kind = "exponential"
    min_seconds: float = 1.0
    max_seconds: float = 3600.0
    factor: float = 2.0
    jitter: Jitter = "equal"
    seconds: float | tuple[float, ...] = ()

    def delay_after(self, attempt: int, jitter: float) -> float:
        """Return the seconds between attempt `attempt` (from 1) and the next; `jitter` is a draw from [0, 1)."""
        if self.kind == "fixed":
            return self.seconds if isinstance(self.seconds, int | float) else self.seconds[0]
        if self.kind == "list":
            steps = self.seconds if isinstance(self.seconds, tuple) else (self.seconds,)
            return steps[min(attempt, len(steps)) - 1]
        delay = self._grown(attempt)
        if self.jitter == "full":
            return delay * jitter
        if self.jitter == "equal":
            return delay / 2 + delay / 2 * jitter
        return delay

    def _grown(self, attempt: int) -> float:
        if self.min_seconds <= 0:
            return 0.0
        try:
            return min(self.max_seconds, self.min_seconds * self.factor ** (attempt - 1))
        except OverflowError:
            return self.max_seconds


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    max_attempts: int = 25
    retry_after_max_seconds: float = 3600.0
    backoff: Backoff = field(default_factory=Backoff)
