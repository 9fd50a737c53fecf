"""What the run says of its tasks and limits: the vocabulary of the record."""

import msgspec


class Use(msgspec.Struct, frozen=True, omit_defaults=True):
    """A limit that a task takes."""

    limit: str
    """`queue:NAME`, `tenant`, `key:QUEUE` or `limit:NAME`."""
    key: str | None = None
    """Of a limit that holds for each key by itself."""
    cost: int = 1
    """Units of the rate."""


class Task(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=False):
    """What a task is: its payload."""

    number: int
    queue: str
    uses: tuple[Use, ...] = ()
    key: str | None = None
    place: int | None = None
    """Among the tasks of its key, if they are to run in order."""
    probe: bool = False
    """Alone under its key, and no limit but those of its queue and tenant holds it back: it starts in its turn."""


class Rate(msgspec.Struct, frozen=True):
    per_second: float
    burst: float


class Terms(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a limit, or the override of one of its keys (`NAME/KEY`), says."""

    max_concurrency: int | None = None
    rate: Rate | None = None
    paused: bool = False
    removed: bool = False
    """Of an override: it says nothing any more, the limit's own terms hold."""
