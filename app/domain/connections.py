"""How many connections a replica takes, what each of them is for, and whether the server has so many left.

A replica opens all of them when it starts and keeps them, so that what it was given then cannot be taken by others later. Each
use has its own, so that none can take those of another. Where a replica finds less than it is set to take, it starts with what
is left, and says so; with less than MIN_CONNECTIONS it does not start.
"""

from dataclasses import dataclass

from app.domain.plurals import counted

MIN_CONNECTIONS = 8
MAX_CONNECTIONS = 1000
DEFAULT_CONNECTIONS = 20


@dataclass(frozen=True, slots=True)
class Connections:
    """A replica's connections by use. Their sum is `total`."""

    work: int
    """Enqueues, claims, settles, renewals, the loops; parts of it for what else callers need (`lookups`, `changes`)."""
    reads: int
    """Lists, look-ups, statistics."""
    definitions: int
    """Queues, handlers and limits: reading and changing them."""
    listening: int = 1
    chores: int = 1
    """Migrations at the start, afterwards dropping the days of history that have passed."""
    wanted: int = 0
    """What the setting asks for."""

    @property
    def total(self) -> int:
        return self.work + self.reads + self.definitions + self.listening + self.chores

    @property
    def lookups(self) -> int:
        """How many of `work` may be taken at once by look-ups for enqueues and pulls: a third, rounded down, never none."""
        return max(1, self.work // 3)

    @property
    def pulls(self) -> int:
        """How many of `work` may be taken at once by claims for workers: half of them, rounded down. Claims are short, so one
        tenant may have all of these but one."""
        return max(1, self.work // 2)

    @property
    def changes(self) -> int:
        """How many of `work` may be taken at once by cancels, retries, purges and the like: another third."""
        return max(1, self.work // 3)


def split(total: int, wanted: int | None = None) -> Connections:
    """
    One connection listens, one is for chores. Of the rest a sixth is for definitions and a quarter for reads, both rounded down
    and at least two, so that no tenant alone takes all of them; all else is for work:

        20 = 1 + 1 + 3 definitions + 4 reads + 11 work (of these 3 for look-ups, 3 for changes, 5 for pulls)
        10 = 1 + 1 + 2 definitions + 2 reads +  4 work (of these 1, 1 and 2)
         8 = 1 + 1 + 2 definitions + 2 reads +  2 work (of these 1, 1 and 1)
    """
    if total < MIN_CONNECTIONS:
        raise ValueError(f"{total} connections are too few; at least {MIN_CONNECTIONS} are needed")
    rest = total - 2
    definitions, reads = max(2, rest // 6), max(2, rest // 4)
    return Connections(rest - definitions - reads, reads, definitions, wanted=total if wanted is None else wanted)


def share(places: int) -> int:
    """How many of so many places one tenant may have at once: half of them, rounded up, and one less than all."""
    return max(1, min((places + 1) // 2, places - 1))


class NoRoom(Exception):
    """The server has too few connections left for a replica; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One of the bounds on sessions, and how many there are under it now."""

    max: int
    used: int
    words: str
    """What it is, and how it is raised."""

    @property
    def left(self) -> int:
        return max(0, self.max - self.used)


def tightest(limits: list[Limit]) -> Limit:
    return min(limits, key=lambda limit: limit.left)


def fit(wanted: int, limits: list[Limit]) -> Connections:
    """What a replica that wants so many gets. Raises NoRoom."""
    bound = tightest(limits)
    if bound.left >= wanted:
        return split(wanted)
    if bound.left >= MIN_CONNECTIONS:
        return split(bound.left, wanted)
    raise NoRoom(
        f"The database has {counted(bound.left, 'connection')} left for this replica, which needs at least {MIN_CONNECTIONS}: "
        f"{bound.words}, or lower SLUICE_DATABASE_CONNECTIONS on the replicas ({wanted} here)."
    )
