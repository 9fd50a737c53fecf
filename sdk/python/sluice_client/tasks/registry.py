"""Which task a `type` stands for."""

from collections.abc import Iterator
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

from sluice_client.tasks.definitions import Definition
from sluice_client.tasks.faults import DefinitionError

_numbers = count()
_made: "WeakValueDictionary[int, Registry]" = WeakValueDictionary()


def registries() -> "list[Registry]":
    """Return all that there are in this process, the newest first, for tests: they run tasks of any of them."""
    return [registry for _, registry in sorted(_made.items(), reverse=True)]


class Registry:
    """The tasks of one Sluice by name, and behind them those of `parent`: the jobs that belong to no Sluice."""

    def __init__(self, parent: "Registry | None" = None) -> None:
        self._parent = parent
        self._by_name: dict[str, Definition[Any]] = {}
        _made[next(_numbers)] = self

    def __iter__(self) -> Iterator[Definition[Any]]:
        """All of them, those of the parent included."""
        yield from self._by_name.values()
        if self._parent is not None:
            yield from (one for one in self._parent if one.name not in self._by_name)

    def add(self, definition: Definition[Any]) -> None:
        """Raises DefinitionError if another task has the name. The same one, loaded again, takes its place."""
        other = self.find(definition.name)
        if other is not None and not definition.replaces(other):
            raise DefinitionError(
                f"{definition.where}: there is a task {definition.name} already ({other.where}); give one of them a name of"
                ' its own, as in name="mail.welcome"'
            )
        self._by_name[definition.name] = definition

    def find(self, name: str | None) -> Definition[Any] | None:
        """Return the task that a `type` stands for, or None."""
        if name is None:
            return None
        found = self._by_name.get(name)
        return found if found is not None or self._parent is None else self._parent.find(name)

    def queues(self) -> frozenset[str]:
        """The queues that its tasks are on."""
        return frozenset(definition.queue for definition in self)


JOBS = Registry()
"""The jobs that belong to no Sluice."""
