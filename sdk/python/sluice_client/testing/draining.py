"""Runs tasks of the fake, one at a time, in the order in which the service would start them."""

import asyncio
import json
from dataclasses import dataclass
from datetime import timedelta

from sluice_client.context import Delivery
from sluice_client.outcomes import Outcome
from sluice_client.serving import running
from sluice_client.serving.settlements import refused, settlement
from sluice_client.testing.bodies import Refused
from sluice_client.testing.matching import lookup
from sluice_client.testing.records import Json, Task
from sluice_client.testing.service import LEASE_SECONDS, MemorySluice

MAX_TASKS = 100_000
"""After so many, tasks that enqueue one another without an end are the better explanation."""


@dataclass(frozen=True)
class Ran:
    """One attempt of one task, and where it left the task."""

    id: str
    type: str | None
    state: str
    """`succeeded`, `scheduled` or `ready` (it failed, and is tried again), `dead` or `cancelled`."""
    attempt: int
    result: Json
    error: str | None
    """What this attempt failed with."""


class _Lease:
    """What a running task asks of the fake."""

    def __init__(self, sluice: MemorySluice, task: Task, token: str) -> None:
        self._sluice, self._task, self._token = sluice, task, token

    @property
    def cancelled(self) -> bool:
        return self._task.lease is None or self._task.lease[0] != self._token

    def progress(self, value: object) -> None:
        value = json.loads(json.dumps(value))
        if not self.cancelled:
            self._sluice.renew(self._task.id, self._token, LEASE_SECONDS, progress=value)

    def hold(self, seconds: float) -> None:
        if not self.cancelled:
            self._sluice.renew(self._task.id, self._token, seconds)


async def run_due(sluice: MemorySluice) -> list[Ran]:
    """Run what is due, and what becomes due by it, until nothing is. Raises LookupError for a task that no code is known for."""
    ran: list[Ran] = []
    while (task := sluice.next_due()) is not None:
        if len(ran) >= MAX_TASKS:
            raise RuntimeError(f"{MAX_TASKS:,} tasks have run, and there are more: do they enqueue one another?")
        ran.append(await _run(sluice, task))
    return ran


async def _run(sluice: MemorySluice, task: Task) -> Ran:
    definition = lookup(_delivery(sluice, task))
    token = sluice.lease(task)
    lease = _Lease(sluice, task, token)
    try:
        outcome = await running.run(definition, _delivery(sluice, task), lease)
    except asyncio.CancelledError:
        if not lease.cancelled:
            raise
    else:
        try:
            _settle(sluice, task, token, outcome)
        except Refused as why:
            if why.status != 409:  # else it was cancelled meanwhile, and nobody wants the outcome
                _settle(sluice, task, token, refused(why.status, why.detail, why.problem()["errors"]))
    attempt = task.attempts[-1]
    return Ran(task.id, definition.name, task.state_at(sluice.clock.now()), task.attempt, task.result, attempt.error)


def _delivery(sluice: MemorySluice, task: Task) -> Delivery:
    seconds = float(task.fields.get("timeout_seconds") or LEASE_SECONDS)
    return Delivery(
        id=task.id,
        queue=task.queue,
        type=task.fields.get("type"),
        attempt=task.attempt,
        max_attempts=task.retry.max_attempts,
        payload=json.loads(task.payload),
        headers={name.lower(): value for name, value in (task.fields.get("headers") or {}).items()},
        deadline=sluice.clock.now() + timedelta(seconds=seconds),
        seconds=seconds,
        cursor=task.cursor,
        batch_id=task.completes,
        correlation_id=task.fields.get("correlation_id"),
        progress=task.progress,
        traceparent=task.trace.get("traceparent"),
        tracestate=task.trace.get("tracestate"),
    )


def _settle(sluice: MemorySluice, task: Task, token: str, outcome: Outcome) -> None:
    verb, body = settlement(outcome)
    given = json.loads(body)
    if verb == "complete":
        sluice.complete(task.id, token, given)
    else:
        sluice.fail(
            task.id,
            token,
            given["error"],
            retryable=given.get("retryable", True),
            retry_after=given.get("retry_after_seconds", 0),
        )
