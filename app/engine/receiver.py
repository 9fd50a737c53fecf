"""Receiving from one source, on one replica.

A round:
1. Write what the last one has done, and take room (take_source_room_v1): how many messages may be received, so that no more
   than `max_outstanding` tasks of the source are unfinished, whatever the other replicas do. Without room, look again soon.
2. Receive. This waits for up to 20 seconds and is never cancelled, because what it brings would stay hidden at the source. After a
   wait, ask whether the source has been changed or paused meanwhile, at whichever replica.
3. Enqueue (runtime/receiving.py), while the source is told now and then to keep the messages hidden.
4. Acknowledge what is committed. What is not, because the queue is full or the database is away, is tried again: meanwhile nothing
   is received, and nothing dropped.

A replica that stops enqueues what its last receive has brought, if that works at once, and gives the rest back. A crash anywhere:
the source gives the messages to others when their time is up, and those that had been enqueued are found by their keys.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from app.domain.errors import Refusal
from app.domain.sources import Counts, storable
from app.runtime import receiving
from app.runtime.core import Core
from app.sources.kinds import Message, Source, SourceError
from app.store import sources
from app.store.failures import Unavailable
from app.store.sources import Round, SourceRow
from app.telemetry import events
from app.telemetry.logs import get_logger

MAX_RECEIVE = 100
FIRST_LOOK_SECONDS, MAX_LOOK_SECONDS = 0.05, 1.0
"""How soon room is looked for again where there was none; twice as long each time."""
FRESH_SECONDS = 0.1
"""After a receive that lasted longer, the database is asked again whether the source is as it was."""
FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.2, 5.0
"""The same for messages that could not be enqueued."""
FIRST_REST_SECONDS, MAX_REST_SECONDS = 1.0, 30.0
"""The same after a failure of the source."""
PERMANENT_REST_SECONDS = 30.0
ACKNOWLEDGE_TRIES = 3

log = get_logger(__name__)


class Receiver:
    """A source's receiver on this replica. `open` connects to it, and is called again if it fails. Raises nothing."""

    def __init__(self, core: Core, row: SourceRow, open_source: Callable[[], Source]) -> None:
        self._core = core
        self.row = row
        self._open = open_source
        self._source: Source | None = None
        self._stop = asyncio.Event()
        self._dropping = False
        """What is not enqueued yet is given back: the source has changed, or is paused or gone."""
        self._tasks: list[str] = []
        self._counts = Counts()
        self._error: str | None = None
        self._worked = False
        self._to_measure = False
        """It is this replica's turn."""
        self._said: str | None = None
        """The failure that the log has last been told of."""
        self._rest = 0.0
        self._look = FIRST_LOOK_SECONDS
        self.receiving = False
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._running = asyncio.create_task(self._run(), name=f"source {self.row.view.name}")

    @property
    def ended(self) -> bool:
        return self._running is not None and self._running.done()

    def stop(self, *, dropping: bool = False) -> None:
        """Receive no more. The receive under way is finished; `dropping`: what it brings is given back."""
        self._dropping = self._dropping or dropping
        self._stop.set()

    def give_up(self) -> None:
        if self._running is not None:
            self._running.cancel()

    async def stopped(self) -> None:
        if self._running is not None:
            await asyncio.wait((self._running,))

    async def _run(self) -> None:
        while not self._stop.is_set():
            try:
                wait = await self._round()
            except SourceError as error:
                wait = self._failed(error)
            except Unavailable:
                wait = MAX_RETRY_SECONDS
            except Refusal as refusal:
                wait = self._failed(SourceError(refusal.detail, permanent=True))
            except Exception as error:
                events.emit(log, events.SOURCE_BROKE, **self._names(), exc_info=error)
                wait = self._failed(SourceError(f"an internal error: {type(error).__name__}"))
            if self._error:
                await self._write()
            if wait:
                await self._sleep(wait)
        await self._leave()

    async def _round(self) -> float:
        """Return the seconds until the next."""
        room = await self._take(MAX_RECEIVE)
        if room is None:
            self.stop(dropping=True)
            return 0.0
        if self.row.view.secrets_lost:
            raise SourceError("its credentials cannot be decrypted: PUT the source again, with them", permanent=True)
        source = self._source = self._source or self._open()
        if self._to_measure:
            self._to_measure = False
            await self._measure(source)
        if room.messages == 0:
            wait, self._look = self._look, min(MAX_LOOK_SECONDS, self._look * 2)
            return wait
        self._look = FIRST_LOOK_SECONDS
        if self._stop.is_set():
            return 0.0
        self.receiving, began = True, time.monotonic()
        try:
            messages = await source.receive(room.messages)
        finally:
            self.receiving = False
        self._succeeded()
        self._count(Counts(lost=source.take_lost()))
        if messages:
            self._count(Counts(received=len(messages)))
            await self._bring(source, messages, fresh=time.monotonic() - began < FRESH_SECONDS)
        return 0.0

    async def _take(self, most: int, in_flight: int = 0) -> sources.Room | None:
        done = Round(tuple(self._tasks), self._counts, in_flight, self._error, self._worked)
        room = await sources.take_room(self._core.db, self.row, self._core.replica.id, most, done)
        del self._tasks[: len(done.tasks)]
        self._counts = Counts(*(have - gone for have, gone in zip(self._counts, done.counts, strict=True)))
        self._error, self._worked = None, False
        if room is not None and room.measure:
            self._to_measure = True
        return room

    async def _write(self) -> None:
        """Write what was done and what has failed, without taking room."""
        with contextlib.suppress(Unavailable):
            await self._take(0)

    async def _bring(self, source: Source, messages: Sequence[Message], *, fresh: bool) -> None:
        """Enqueue messages and acknowledge them; give back those for which there is no time any more."""
        pending, done = list(messages), asyncio.Event()
        keeping = asyncio.create_task(self._keep(source, pending, done))
        wait = FIRST_RETRY_SECONDS
        try:
            if not fresh:
                await self._still(len(pending))
            while pending and not self._dropping:
                placed = await receiving.place(self._core, self.row, pending)
                self._tasks += placed.tasks
                self._count(placed.counts)
                pending[:] = placed.waiting
                await self._acknowledge(source, placed.done)
                if placed.done:
                    self._worked = True
                if placed.problem is not None:
                    self._error = storable(placed.problem)
                if self._stop.is_set():
                    break
                if pending:
                    await self._sleep(wait)
                    wait = min(MAX_RETRY_SECONDS, wait * 2)
                    await self._still(len(pending))
        finally:
            done.set()
            await keeping
        if pending:
            with self._tolerating():
                await source.give_back(pending)
                self._count(Counts(lost=source.take_lost()))

    async def _still(self, pending: int) -> None:
        """Say how many messages wait, keep the room for them, and stop if the source has changed."""
        with contextlib.suppress(Unavailable):
            if await self._take(pending, in_flight=pending) is None:
                self.stop(dropping=True)

    async def _keep(self, source: Source, pending: list[Message], done: asyncio.Event) -> None:
        """Keep messages hidden from others until `done`."""
        every = source.extend_seconds
        while every is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await done.wait()
            if done.is_set():
                return
            with self._tolerating():
                await source.extend(tuple(pending))

    async def _acknowledge(self, source: Source, messages: Sequence[Message]) -> None:
        """Acknowledge messages, or leave it: they come again, and are known then."""
        for tried in range(1, ACKNOWLEDGE_TRIES + 1):
            if not messages:
                return
            try:
                await source.acknowledge(messages)
                return
            except SourceError as error:
                if error.permanent or tried == ACKNOWLEDGE_TRIES or self._stop.is_set():
                    self._failed(error)
                    return
            await self._sleep(FIRST_RETRY_SECONDS * tried)

    async def _measure(self, source: Source) -> None:
        with self._tolerating():
            depth = await source.measure()
            with contextlib.suppress(Unavailable):
                await sources.write_depth(self._core.db, self.row.id, depth.lag, depth.oldest_age_seconds)

    async def _leave(self) -> None:
        """Write what is left to write, and give back the room."""
        await self._write()
        with contextlib.suppress(Unavailable):
            await sources.leave(self._core.db, self.row.id, self._core.replica.id)
        if self._source is not None:
            with self._tolerating():
                await self._source.aclose()

    @contextlib.contextmanager
    def _tolerating(self) -> Iterator[None]:
        """Note a failure of the source that must not end what is under way."""
        try:
            yield
        except SourceError as error:
            self._failed(error)
        except Exception as error:
            events.emit(log, events.SOURCE_BROKE, **self._names(), exc_info=error)
            self._failed(SourceError(f"an internal error: {type(error).__name__}"))

    def _failed(self, error: SourceError) -> float:
        """Note a failure; return the seconds to rest."""
        self._error = storable(str(error))
        if self._said != self._error:
            self._said = self._error
            events.emit(log, events.SOURCE_FAILED, **self._names(), error=self._error)
        if error.permanent:
            self._rest = PERMANENT_REST_SECONDS
        else:
            self._rest = min(MAX_REST_SECONDS, max(FIRST_REST_SECONDS, self._rest * 2))
        return self._rest

    def _succeeded(self) -> None:
        self._rest, self._worked = 0.0, True
        if self._said is not None:
            self._said = None
            events.emit(log, events.SOURCE_RECOVERED, **self._names())

    def _count(self, more: Counts) -> None:
        self._counts = self._counts.plus(more)
        self._core.metrics.messages_counted(self.row.tenant, self.row.view.name, more._asdict())

    def _names(self) -> dict[str, str]:
        return {"tenant": self.row.tenant, "source": self.row.view.name}

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
