"""Wake-ups between replicas over LISTEN and NOTIFY: hints, never the truth.

A NOTIFY inside the enqueue transaction cuts concurrent inserters to a third, so it is sent outside, coalesced.
"""

import asyncio
import time
from collections.abc import Callable

import asyncpg
import msgspec

from app.store.connecting import connect
from app.store.db import Database
from app.store.failures import Unavailable, translated
from app.store.statements import sql

CHANNEL = "sluice"
MAX_PAYLOAD_BYTES = 7500
QUIET_SECONDS = 1.5
"""How long nothing need be heard before the listener proves that it would hear it."""
ANSWER_SECONDS = 3.0
ANSWER_STEPS = 6


class Hint(msgspec.Struct, omit_defaults=True):
    """What one replica tells the others."""

    replica: str
    lanes: set[tuple[int, int]] = set()
    """Lanes with new work."""
    freed: set[tuple[int, int, int]] = set()
    """Slots that came free, each as the (tenant, handler, queue) whose limits it counted against."""
    any_lane: bool = False
    """A definition changed: look at everything."""
    revoked: list[str] = []
    """Tasks whose lease was revoked."""


_HINT = msgspec.json.Decoder(Hint)
_NOTIFY = sql("send_notification")


async def send(db: Database, hint: Hint) -> None:
    """A hint too long for one NOTIFY becomes one about any lane; what it revoked is then found by the next renewal."""
    text = msgspec.json.encode(hint).decode()
    if len(text) > MAX_PAYLOAD_BYTES:
        text = msgspec.json.encode(Hint(hint.replica, any_lane=True)).decode()
    await db.fetch(_NOTIFY, CHANNEL, text)


class Silent(Unavailable):
    """The connection took what was sent and nothing came back: it leads nowhere, and nobody closed it."""

    def __init__(self, asked_at: float) -> None:
        super().__init__(f"no NOTIFY came back within {ANSWER_SECONDS:g} s; the connection is dead")
        self.asked_at = asked_at
        """Monotonic seconds of the question."""


class Listener:
    """One connection that hears the hints of others.

    A connection that only listens is never sent to, so one that leads nowhere (after a failover behind a balancer, or with its
    NAT entry gone) looks like one on which nothing happens. Whenever nothing has been heard for a while, the listener notifies
    itself over this very connection: that comes back only if the socket, the server behind it and the LISTEN are all there.
    What others say is as good a proof, so a fleet sends about as many of these as one replica.
    """

    def __init__(self, dsn: str, replica: str, heard: Callable[[Hint], None]) -> None:
        self._dsn = dsn
        self._replica = replica
        self._heard = heard
        self._proof = asyncio.Event()

    async def run(self, connected: Callable[[], None]) -> None:
        """Returns, or raises Unavailable (Silent), when the connection is lost."""
        lost = asyncio.Event()
        async with translated():
            connection = await connect(self._dsn)
        try:
            connection.add_termination_listener(lambda _: self._lost(lost))
            async with translated():
                await connection.add_listener(CHANNEL, self._on_notify)
            connected()
            while not await _happens(lost, QUIET_SECONDS):
                if not self._proof.is_set():
                    await self._prove(connection)
                self._proof.clear()
        finally:
            connection.terminate()

    async def _prove(self, connection: asyncpg.Connection) -> None:
        asked_at = time.monotonic()
        asking = asyncio.ensure_future(connection.execute(f"notify {CHANNEL}"))
        try:
            # step by step: a process that stood still for a while has one step less, and its answer is there at the next
            for _ in range(ANSWER_STEPS):
                if await _happens(self._proof, ANSWER_SECONDS / ANSWER_STEPS):
                    break
            else:
                raise Silent(asked_at)
            async with translated():
                await asking
        finally:
            asking.cancel()

    def _lost(self, lost: asyncio.Event) -> None:
        lost.set()
        self._proof.set()  # nobody is to wait for it any more

    def _on_notify(self, _connection: asyncpg.Connection, _pid: int, _channel: str, payload: str) -> None:
        self._proof.set()
        try:
            hint = _HINT.decode(payload)
        except msgspec.DecodeError:
            return  # a proof of life; and anyone who may connect may notify; what is not ours is nothing
        if hint.replica != self._replica:
            self._heard(hint)


async def _happens(event: asyncio.Event, seconds: float) -> bool:
    """Whether it does within that time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
