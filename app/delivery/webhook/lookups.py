"""DNS lookups: in turns by tenant, and without waiting again for name servers that do not answer.

1. The C library's resolver blocks and cannot be stopped, for half a minute if a name's servers are silent. Each lookup runs on a
daemon thread of its own, so that it blocks neither the loop nor the process's exit.
2. Threads are places that tenants share (app.domain.turns). A place is held until its thread has ended, even if nobody waits.
3. A tenant's name is looked up once at a time, and everyone who asks waits for that answer. A lookup that is still waiting for
its turn is dropped when nobody waits for it any longer.
4. Callers wait for ANSWER_SECONDS. A name without an answer by then, or with a temporary failure, has stalled: it is looked up
again only after a pause, which doubles with each failure, and then with places reserved for stalled names. So names that work
never wait behind names that have stalled before.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from app.domain.errors import Refusal
from app.domain.fair_cache import FairCache
from app.domain.turns import Turns

Resolver = Callable[[str, int], Awaitable[list[str]]]

PLACES = 64
TENANT_PLACES = 16
TENANT_WAITING = 256
STALLED_PLACES = 16
TENANT_STALLED_PLACES = 4
TENANT_STALLED_WAITING = 64
TURN_SECONDS = 10.0
ANSWER_SECONDS = 15.0
"""Long enough if two of three name servers are down: the C library tries the next one after 5 seconds."""
FIRST_PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 60.0
MAX_STALLED = 8_192
"""How many stalled names of all tenants are remembered."""


class LookupFailed(OSError):
    """Raised if a name cannot be resolved now: its servers are silent or fail temporarily, or no place is free."""


@dataclass(frozen=True, slots=True)
class _Stall:
    until: float
    pause: float


@dataclass(slots=True, eq=False)
class _Flight:
    tenant: str
    host: str
    port: int
    answer: "asyncio.Future[list[str]]"
    task: "asyncio.Task[None] | None" = None
    waiting: int = 0
    begun: bool = False


class Lookups:
    """Lookups of one event loop."""

    def __init__(self, resolver: Resolver | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._resolver = resolver or resolve
        self._clock = clock
        self._flights: dict[tuple[str, str], _Flight] = {}
        self._stalls: FairCache[str, _Stall] = FairCache(max_weight=MAX_STALLED)
        self._turns = Turns("looking up names", places=PLACES, share=TENANT_PLACES, max_waiting=TENANT_WAITING)
        self._stalled_turns = Turns(
            "looking up names that have stalled",
            places=STALLED_PLACES,
            share=TENANT_STALLED_PLACES,
            max_waiting=TENANT_STALLED_WAITING,
        )

    async def addresses(self, tenant: str, host: str, port: int) -> list[str]:
        """Return a name's addresses, unchecked. Raises LookupFailed, or what the resolver raises for a name that does not exist."""
        flight = self._flights.get((tenant, host))
        if flight is None:
            self._require_rest(tenant, host)
            flight = _Flight(tenant, host, port, asyncio.get_running_loop().create_future())
            self._flights[tenant, host] = flight
            flight.task = asyncio.create_task(self._fly(flight))
            flight.task.add_done_callback(lambda _: self._ended(flight))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.answer)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.begun and flight.task is not None:
                self._ended(flight)  # at once, so that nobody joins a lookup that is being cancelled
                flight.task.cancel()

    def _ended(self, flight: _Flight) -> None:
        if self._flights.get((flight.tenant, flight.host)) is flight:
            del self._flights[flight.tenant, flight.host]

    def _require_rest(self, tenant: str, host: str) -> None:
        stall = self._stalls.get(tenant, host)
        if stall is not None and (left := stall.until - self._clock()) > 0:
            raise LookupFailed(f"its name servers did not answer; they will be asked again in {left:.0f} s")

    async def _fly(self, flight: _Flight) -> None:
        stalled = self._stalls.get(flight.tenant, flight.host) is not None
        try:
            turns = self._stalled_turns if stalled else self._turns
            async with turns.turn(flight.tenant, patience_seconds=TURN_SECONDS):
                flight.begun = True
                looking = asyncio.ensure_future(self._resolver(flight.host, flight.port))
                await asyncio.wait((looking,), timeout=ANSWER_SECONDS)
                if not looking.done():
                    _fail(flight, LookupFailed(f"its name servers did not answer within {ANSWER_SECONDS:g} s"))
                    await asyncio.wait((looking,))
                self._land(flight, looking)
        except Refusal as refusal:
            _fail(flight, LookupFailed(refusal.detail))

    def _land(self, flight: _Flight, looking: "asyncio.Future[list[str]]") -> None:
        error = looking.exception()
        again = isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
        if error is not None and (again or flight.answer.done()):
            self._stall(flight)
            _fail(flight, LookupFailed(str(error)))
            return
        self._stalls.forget(flight.tenant, flight.host)
        if error is not None:
            _fail(flight, error)
        elif not flight.answer.done():
            flight.answer.set_result(looking.result())

    def _stall(self, flight: _Flight) -> None:
        before = self._stalls.get(flight.tenant, flight.host)
        pause = FIRST_PAUSE_SECONDS if before is None else min(2 * before.pause, LONGEST_PAUSE_SECONDS)
        self._stalls.put(flight.tenant, flight.host, _Stall(self._clock() + pause, pause))


def _fail(flight: _Flight, error: BaseException) -> None:
    if not flight.answer.done():
        flight.answer.set_exception(error)
        flight.answer.exception()  # retrieved here, because everyone who asked may have gone


async def resolve(host: str, port: int) -> list[str]:
    """Return a name's addresses in the system's order of preference."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def settle(addresses: list[str], error: Exception | None) -> None:
        if not answer.done():
            answer.set_exception(error) if error is not None else answer.set_result(addresses)

    def run() -> None:
        addresses: list[str] = []
        problem: Exception | None = None
        try:
            found = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
            addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        except Exception as error:
            problem = error
        with suppress(RuntimeError):  # the loop has been closed in the meantime
            loop.call_soon_threadsafe(settle, addresses, problem)

    threading.Thread(target=run, name=f"resolve {host}", daemon=True).start()
    return await answer
