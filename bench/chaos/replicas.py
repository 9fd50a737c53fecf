"""Replicas that are killed, paused past their leases and restarted, two of them with wall clocks that are hours off."""

import asyncio
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.processes import Child, ChildFailed, clean_environ

LEASE_SECONDS = 5.0
GRACE_SECONDS = 5.0
"""Short, so that the moment without any replica is catch-up's."""
OUTAGE_SECONDS = GRACE_SECONDS + 3
READY_SECONDS = 90.0
SKEWS = {1: "+3h", 3: "-7h"}
"""By number of the replica."""
LEAST_OFF = timedelta(hours=1)
LIBRARIES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib*/faketime/libfaketimeMT.so.1")


def libfaketime() -> Path | None:
    """The library of Debian's package, that of its threads."""
    return next((path for pattern in LIBRARIES for path in Path("/").glob(pattern[1:])), None)


@dataclass
class Tally:
    kills: int = 0
    pauses: int = 0
    restarts: int = 0
    outages: int = 0
    """Moments without any replica, by intent."""


class ConcurrencySlot:
    """The place of a replica, whichever process has it."""

    def __init__(self, number: int, dsn: str, directory: Path, library: Path | None) -> None:
        self.number = number
        self.directory = directory
        self.busy = asyncio.Lock()
        """Held while its process is not to be touched by others."""
        self.child: Child | None = None
        self.url = ""
        self.logs: list[Path] = []
        self.skew = SKEWS.get(number) if library else None
        self.environ = clean_environ(
            SLUICE_DATABASE_URL=dsn,
            SLUICE_HOST="127.0.0.1",
            SLUICE_PORT="0",
            SLUICE_LEASE_SECONDS=str(LEASE_SECONDS),
            SLUICE_SCHEDULE_GRACE_SECONDS=str(GRACE_SECONDS),
        )
        if self.skew:
            # what waits on the monotonic clock is not what is tried here, nor are the times of files
            faked = {"FAKETIME": self.skew, "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
            self.environ |= {"LD_PRELOAD": str(library), **faked}

    async def start(self) -> None:
        sluice = Path(sys.executable).with_name("sluice")
        log = self.directory / f"replica-{self.number}-{len(self.logs)}.log"
        self.logs.append(log)
        self.child = await Child.start([str(sluice), "up"], log, self.environ, cwd=self.directory)
        said = await self.child.heard("ready", READY_SECONDS)
        self.url = said["url"].rstrip("/")
        off = datetime.fromisoformat(said["timestamp"]) - datetime.now(UTC)
        if self.skew and abs(off) < LEAST_OFF:
            raise ChildFailed(f"replica {self.number} was to be off by {self.skew}, and is by {off}")

    async def kill(self) -> None:
        if self.child is not None and self.child.process.returncode is None:
            self.child.process.kill()
            await self.child.process.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self.child is not None
        self.child.process.send_signal(number)


class Chaos:
    def __init__(
        self,
        slots: list[ConcurrencySlot],
        dice: random.Random,
        progress: Callable[[str], None],
        *,
        at_once: int | None = None,
    ) -> None:
        self.slots = slots
        self.tally = Tally()
        self._at_once = len(slots) if at_once is None else at_once
        """How many replicas are killed or paused at a time, but for the moment without any."""
        self._dice = dice
        self._progress = progress

    async def until(self, deadline: float) -> None:
        """Until this monotonic time, something about every two seconds; after a third of it a moment without any replica."""
        begun = time.monotonic()
        outage_at = begun + (deadline - begun) / 3
        async with asyncio.TaskGroup() as group:
            while (now := time.monotonic()) < deadline:
                if now >= outage_at and not self.tally.outages:
                    await self._outage()
                free = [slot for slot in self.slots if not slot.busy.locked()]
                if len(self.slots) - len(free) < self._at_once:
                    group.create_task(self._harm(self._dice.choice(free)))
                await asyncio.sleep(self._dice.uniform(1.0, 3.0))
        # whoever was away at the end is back here

    async def _harm(self, slot: ConcurrencySlot) -> None:
        async with slot.busy:
            if self._dice.random() < 0.5:
                await self._kill(slot)
                await asyncio.sleep(self._dice.uniform(0, 3))
                await self._restart(slot)
            else:
                self._progress(f"replica {slot.number} paused")
                self.tally.pauses += 1
                slot.signal(signal.SIGSTOP)
                await asyncio.sleep(LEASE_SECONDS + self._dice.uniform(1, 5))
                slot.signal(signal.SIGCONT)

    async def _outage(self) -> None:
        self.tally.outages += 1
        try:
            for slot in self.slots:
                await slot.busy.acquire()
                await self._kill(slot)
            await asyncio.sleep(OUTAGE_SECONDS)
            await asyncio.gather(*map(self._restart, self.slots))
        finally:
            for slot in self.slots:
                slot.busy.release()

    async def _kill(self, slot: ConcurrencySlot) -> None:
        self._progress(f"replica {slot.number} killed")
        self.tally.kills += 1
        await slot.kill()

    async def _restart(self, slot: ConcurrencySlot) -> None:
        self.tally.restarts += 1
        await slot.start()
