"""The schedules of the chaos run, and when each has to fire: worked out here second by second, with nothing of Sluice's own."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

ZONES = ("UTC", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe")
INTERVALS = (1, 2, 3, 4, 5, 6, 10, 15, 20, 30, 45, 60)
CRONS: dict[str, Callable[[int], bool]] = {
    "* * * * * *": lambda second: True,
    "*/2 * * * * *": lambda second: second % 2 == 0,
    "*/5 * * * * *": lambda second: second % 5 == 0,
    "1-59/4 * * * * *": lambda second: second % 4 == 1,
    "7,22,37,52 * * * * *": lambda second: second in (7, 22, 37, 52),
    "0,30 * * * * *": lambda second: second in (0, 30),
    "41 * * * * *": lambda second: second == 41,
}
"""Six fields, and the seconds of a minute that the first one means. Offsets of today's zones are whole minutes."""
WORDS = {"every second": 1, "every 10 seconds": 10, "every 30 seconds": 30, "every minute": 60}
SECOND = timedelta(seconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, eq=False)
class Timed:
    """A schedule; `kind` is the row of the table that it counts in."""

    name: str
    kind: str
    when: dict[str, Any]
    fits: Callable[[datetime], bool]
    phase: timedelta = timedelta()

    def body(self, queue: str, end_at: datetime) -> dict[str, Any]:
        fixed = {"overlap": "allow_all", "catch_up": {"mode": "all"}, "end_at": end_at.isoformat()}
        return {"queue": queue, "payload": {"schedule": self.name}, **fixed, **self.when}

    def expected(self, after: datetime, end_at: datetime) -> list[datetime]:
        """Nominal times strictly after `after`, up to `end_at`."""
        second = after.replace(microsecond=0) - SECOND
        found = []
        while second <= end_at:
            at = second + self.phase
            if after < at <= end_at and self.fits(second):
                found.append(at)
            second += SECOND
        return found


def _intervals() -> Iterator[Timed]:
    for number in itertools.count():
        every = INTERVALS[number % len(INTERVALS)]
        offset = number % every
        phase = timedelta(milliseconds=250 * (number % 4))
        when = {"every_seconds": every, "phase_seconds": offset + phase / SECOND}
        yield Timed(f"interval-{number}", "interval", when, _each(every, offset), phase)


def _crons_with_seconds() -> Iterator[Timed]:
    for number, (text, means) in enumerate(itertools.cycle(CRONS.items())):
        when = {"cron": text, "seconds": True, "timezone": ZONES[number % len(ZONES)]}
        yield Timed(f"seconds-{number}", "cron with seconds", when, _at_seconds(means))


def _plain_crons() -> Iterator[Timed]:
    for number in itertools.count():
        when = {"cron": "* * * * *", "timezone": ZONES[number % len(ZONES)]}
        yield Timed(f"cron-{number}", "cron", when, _each(60, 0))


def _words() -> Iterator[Timed]:
    for number, (text, every) in enumerate(itertools.cycle(WORDS.items())):
        yield Timed(f"words-{number}", "interval in words", {"cron": text}, _each(every, 0))


def _each(every: int, offset: int) -> Callable[[datetime], bool]:
    return lambda second: (second - EPOCH) // SECOND % every == offset


def _at_seconds(means: Callable[[int], bool]) -> Callable[[datetime], bool]:
    return lambda second: means(second.second)


def build(count: int) -> list[Timed]:
    """So many schedules: a third each of intervals and of crons with seconds, a sixth each of crons and of words."""
    third, sixth = count // 3, count // 6
    sources = ((_crons_with_seconds(), third), (_plain_crons(), sixth), (_words(), sixth))
    found = list(itertools.islice(_intervals(), count - third - 2 * sixth))
    for source, share in sources:
        found += itertools.islice(source, share)
    return found
