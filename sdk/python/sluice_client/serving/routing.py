"""Which task a delivery is for."""

from typing import Any

from sluice_client.context import Delivery
from sluice_client.outcomes import RetryAfter
from sluice_client.tasks.definitions import Definition
from sluice_client.tasks.registry import Registry

UNKNOWN_SECONDS = 60.0
"""How long a task waits that nothing here knows: about as long as a deployment takes."""


def find(registry: Registry, delivery: Delivery) -> Definition[Any] | None:
    """Return the task that the delivery's type stands for. One without a type is for the only task of its queue."""
    if delivery.type is not None:
        return registry.find(delivery.type)
    found = [definition for definition in registry if definition.queue == delivery.queue]
    return found[0] if len(found) == 1 else None


def unknown(registry: Registry, delivery: Delivery) -> RetryAfter:
    """Return the outcome of a task that nothing here knows. It is tried again: while a new version is being rolled out, tasks of
    a new type reach old processes, and tasks of an old type new ones."""
    what = f"no task named {delivery.type!r}" if delivery.type else f"no single task on queue {delivery.queue!r}"
    known = ", ".join(sorted(definition.name for definition in registry)) or "none"
    return RetryAfter(f"this process has {what}; it has: {known}", UNKNOWN_SECONDS)
