"""Leases that this replica holds for its own calls."""

import time
from dataclasses import dataclass
from typing import Any, Literal

from app.runtime.signals import ConcurrencySlot
from app.store.handlers import Target
from app.store.queues import Policy
from app.store.tasks import AttemptEnd, Claimed

TIMEOUT_MARGIN_SECONDS = 5.0
"""How much longer a lease lasts than its call's timeout, for settling; granted by the claim."""
MIN_LEASE_SECONDS = 5.0
SEND_SLACK = 0.2
"""The share of a lease that may have passed before the call is sent."""

LaneKey = tuple[int, int]
SlotState = Literal["free", "taken", "contested"]


@dataclass(slots=True, eq=False)
class Held:
    """A lease this replica holds. Instants are monotonic seconds."""

    task: Claimed
    lane: LaneKey
    policy: Policy
    target: Target
    lease_seconds: float
    """What the claim granted, in seconds."""
    lease_until: float
    """Measured from before the statement that granted or renewed it was sent."""
    renewed: float
    period: int | None = None
    """Of the handler's health when the task was claimed; None without a breaker or an adaptive limit."""
    probe: bool = False
    """The only call that the handler's breaker admits."""
    limited: bool = False
    """Whether limits or rates were in force when it was claimed."""
    cut: str | None = None
    """Why the call was cut: revoked, lost or drained."""
    max_attempts: int = 0
    """Set when the call is sent; 0 before."""
    slot_is: SlotState = "free"
    """What its slot is once it has ended: free, taken (by a claim in the transaction that wrote the outcome), or contested (that
    claim was busy, and is tried again in milliseconds)."""
    answered: bool = False
    """The outcome is being written to the database."""

    @property
    def slot(self) -> ConcurrencySlot | None:
        """Return the slot it occupies; None if nothing limits it."""
        limited = self.limited or self.policy.limited or self.target.limited
        return ConcurrencySlot(self.policy.tenant_id, self.target.id, self.policy.id) if limited else None

    @property
    def timeout_seconds(self) -> float:
        return timeout_of(self.task, self.policy, self.target)

    @property
    def too_late(self) -> bool:
        """Return whether so much of the lease has passed that a call sent now might outlive it."""
        return self.lease_until - time.monotonic() < self.lease_seconds * (1 - SEND_SLACK)

    def refund(self) -> AttemptEnd:
        """Return the outcome of a call that was never sent: ready again, and the attempt does not count."""
        return refund(self.task)

    def abandoned(self) -> AttemptEnd:
        """Return the outcome of a call that a drain cut: the handler may have done its work, so the attempt counts."""
        last = self.task.attempt >= self.max_attempts
        return AttemptEnd(
            self.task.task_id,
            self.task.token,
            kind="dead" if last else "retry",
            outcome="failed",
            reason="attempts_exhausted" if last else None,
            message="the replica was stopped before the handler answered",
        )

    def log_fields(self) -> dict[str, Any]:
        """Return the fields of every log line about an attempt."""
        trace = self.task.options.traceparent
        return {
            "tenant": self.policy.tenant,
            "queue": self.policy.name,
            "task": self.task.task_id,
            "attempt": self.task.attempt,
            "trace_id": trace[3:35] if trace else None,
            "correlation_id": self.task.options.correlation_id,
        }


def timeout_of(task: Claimed, policy: Policy, target: Target) -> float:
    """Return a call's timeout in seconds: the task's own, else the queue's, else the handler's."""
    return task.options.timeout_seconds or policy.timeout_seconds or target.timeout_seconds


def granted_seconds(longest: float, timeout_seconds: float) -> float:
    """Return how long a claim leases a task, in seconds: its timeout and a margin, at most the replica's longest lease."""
    return max(MIN_LEASE_SECONDS, min(longest, timeout_seconds + TIMEOUT_MARGIN_SECONDS))


def refund(task: Claimed) -> AttemptEnd:
    return AttemptEnd(task.task_id, task.token, "refund", "released")
