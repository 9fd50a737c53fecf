"""What the loops have to do, whoever caused it: the truth behind hints that may be lost."""

from dataclasses import dataclass

from app.store.db import Reader
from app.store.statements import call

_POLL = call("poll_v1", 0)


@dataclass(frozen=True, slots=True)
class DueWork:
    """Seconds until there is something to do, at most 0 if there is something now; None if nothing is waiting."""

    promote: float | None
    expire: float | None
    reap: float | None
    fire: float | None
    finish: float | None
    fold: float | None
    sweep: float | None
    health: float | None
    act: float | None
    flows: float | None
    arrive: float | None
    receive: float | None


async def poll(db: Reader) -> DueWork:
    (row,) = await db.fetch(_POLL)
    return DueWork(**{name: {True: 0.0, False: None}.get(found, found) for name, found in row.items()})
