"""The identity of a replica, one process of Sluice."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Replica:
    id: str
    """A random UUID of this process."""
    name: str
    """Host name and short id, for people."""
