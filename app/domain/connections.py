"""How many connections a replica takes, what each is for, and whether the server has that many left.

A replica opens all of them at its start and keeps them, so that nobody else can take them later. Each use has its own, so that
none can starve another. A replica that finds fewer than it is configured to take starts with what is left and logs that; with
fewer than MIN_CONNECTIONS it does not start.
"""

from dataclasses import dataclass

from app.domain.plurals import counted

MIN_CONNECTIONS = 8
MAX_CONNECTIONS = 1000
DEFAULT_CONNECTIONS = 20


@dataclass(frozen=True, slots=True)
class Connections:
    """A replica's connections by use; `total` is their sum."""

    work: int
    """Enqueues, claims, settles, renewals and the loops; shares of it serve other requests (`lookups`, `changes`)."""
    reads: int
    """Lists, lookups, statistics."""
    definitions: int
    """Queues, handlers and limits: reading and changing them."""
    listening: int = 1
    chores: int = 1
    """Migrations at the start; later, dropping history partitions past their retention."""
    wanted: int = 0
    """What the setting asks for; 0 when it is not known."""

    @property
    def total(self) -> int:
        return self.work + self.reads + self.definitions + self.listening + self.chores

    @property
    def lookups(self) -> int:
        """Return how many of `work` lookups for enqueues and pulls may use at once: a third, rounded down, at least one."""
        return max(1, self.work // 3)

    @property
    def pulls(self) -> int:
        """Return how many of `work` claims for workers may use at once: half, rounded down. Claims are short, so one tenant may
        have all but one of these."""
        return max(1, self.work // 2)

    @property
    def changes(self) -> int:
        """Return how many of `work` cancels, retries, purges and the like may use at once: another third."""
        return max(1, self.work // 3)


def split(total: int, wanted: int | None = None) -> Connections:
    """Divide `total` connections by use. Raises ValueError below MIN_CONNECTIONS.

    One connection listens and one is for chores. Of the rest, a sixth is for definitions and a quarter for reads, both rounded
    down and at least two, so that no single tenant takes all of them. Everything else is for work:

        20 = 1 + 1 + 3 definitions + 4 reads + 11 work (3 of them for lookups, 3 for changes, 5 for pulls)
        10 = 1 + 1 + 2 definitions + 2 reads +  4 work (1, 1 and 2 of them)
         8 = 1 + 1 + 2 definitions + 2 reads +  2 work (1, 1 and 1 of them)
    """
    if total < MIN_CONNECTIONS:
        raise ValueError(f"{total} connections are too few; at least {MIN_CONNECTIONS} are needed")
    rest = total - 2
    definitions, reads = max(2, rest // 6), max(2, rest // 4)
    return Connections(rest - definitions - reads, reads, definitions, wanted=total if wanted is None else wanted)


def share(places: int) -> int:
    """Return how many of `places` one tenant may have at once: half, rounded up, but never all."""
    return max(1, min((places + 1) // 2, places - 1))


class NoRoom(Exception):
    """Raised when the server has too few connections left for a replica; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One of the limits on sessions, and how many count against it now."""

    max: int
    used: int
    words: str
    """What the limit is, and how to raise it."""

    @property
    def left(self) -> int:
        return max(0, self.max - self.used)


def tightest(limits: list[Limit]) -> Limit:
    return min(limits, key=lambda limit: limit.left)


def fit(wanted: int, limits: list[Limit]) -> Connections:
    """Return the connections of a replica that wants this many. Raises NoRoom."""
    bound = tightest(limits)
    if bound.left >= wanted:
        return split(wanted)
    if bound.left >= MIN_CONNECTIONS:
        return split(bound.left, wanted)
    raise NoRoom(
        f"The database has {counted(bound.left, 'connection')} left for this replica, which needs at least {MIN_CONNECTIONS}: "
        f"{bound.words}, or lower SLUICE_DATABASE_CONNECTIONS on the replicas ({wanted} here)."
    )
