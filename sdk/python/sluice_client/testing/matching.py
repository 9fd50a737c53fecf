"""Which dispatched tasks an expectation means."""

from collections.abc import Mapping, Sequence
from typing import Any

from sluice_client.context import Delivery
from sluice_client.serving.routing import find
from sluice_client.tasks.definitions import Definition
from sluice_client.tasks.faults import PayloadInvalid
from sluice_client.tasks.registry import registries
from sluice_client.testing.records import Json


def lookup(delivery: Delivery) -> "Definition[Any]":
    """Return the task that a delivery is for, in whichever `Sluice` it was declared. Raises LookupError."""
    for registry in registries():
        found = find(registry, delivery)
        if found is not None:
            return found
    what = f"named {delivery.type!r}" if delivery.type else f"that is the only one of queue {delivery.queue!r}"
    raise LookupError(f"no task {what} is declared: import the module that declares it")


def definition_of(task: Any) -> "Definition[Any]":
    """Return the definition of a task function or a Job class. Raises TypeError for anything else."""
    definition = getattr(getattr(task, "__sluice_task__", task), "definition", None)
    if not isinstance(definition, Definition):
        raise TypeError(f"{task!r} is no task: name a function with @sluice.task, or a Job class")
    return definition


def named(definition: "Definition[Any]", args: Sequence[Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments, some or all, by the names of their parameters. Raises TypeError for one that is none."""
    if len(args) > len(definition.parameters):
        raise TypeError(f"{definition.name} takes {len(definition.parameters)} arguments, not {len(args)}")
    found = {**dict(zip(definition.parameters, args, strict=False)), **arguments}
    strange = found.keys() - set(definition.parameters)
    if strange:
        raise TypeError(f"{definition.name} has no argument {', '.join(sorted(strange))}")
    return found


def fits(definition: "Definition[Any]", payload: Json, wanted: Mapping[str, Any]) -> bool:
    """Return whether a payload stands for these arguments. One that it leaves out has its default."""
    try:
        values = definition.arguments(payload).values
    except PayloadInvalid:
        values = payload if isinstance(payload, dict) else {}  # compared as it stands
    return all(name in values and values[name] == value for name, value in wanted.items())
