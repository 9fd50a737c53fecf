"""Wake-ups between replicas over LISTEN and NOTIFY: hints, never relied on.

A NOTIFY inside the enqueue transaction reduces concurrent inserts to a third, so it is sent outside, coalesced.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Annotated

import asyncpg
import msgspec

from app.store.connecting import connect
from app.store.db import Database
from app.store.failures import Unavailable, translated
from app.store.statements import sql

CHANNEL = "sluice"
MAX_PAYLOAD_BYTES = 7500
QUIET_SECONDS = 1.5
"""How long the listener stays without a message before it verifies its connection."""
ANSWER_SECONDS = 3.0
ANSWER_STEPS = 6


Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""An id as the database has it: anyone who may connect may notify, and a statement refuses a number that is larger."""


class Hint(msgspec.Struct, omit_defaults=True):
    """What one replica sends to the others."""

    replica: str
    lanes: set[tuple[Id, Id]] = set()
    """Lanes with new work."""
    freed: set[tuple[Id, Id, Id]] = set()
    """Slots that came free, as (tenant, handler, queue) ids of the limits they counted against."""
    any_lane: bool = False
    """A definition has changed: check everything."""
    revoked: list[str] = []
    """Tasks whose lease was revoked."""
    arrived: bool = False
    """A transaction with sluice.enqueue has committed (insert_task_v1 sends this)."""


_HINT = msgspec.json.Decoder(Hint)
_NOTIFY = sql("send_notification")


async def send(db: Database, hint: Hint) -> None:
    """Send a hint. One too long for a NOTIFY is replaced by "check everything"; the next renewal then finds revoked leases."""
    text = msgspec.json.encode(hint).decode()
    if len(text) > MAX_PAYLOAD_BYTES:
        text = msgspec.json.encode(Hint(hint.replica, any_lane=True)).decode()
    await db.fetch(_NOTIFY, CHANNEL, text)


class Silent(Unavailable):
    """Raised if nothing came back on the connection: it is dead, although nobody closed it."""

    def __init__(self, asked_at: float) -> None:
        super().__init__(f"no NOTIFY came back within {ANSWER_SECONDS:g} s; the connection is dead")
        self.asked_at = asked_at
        """When the check was sent, in monotonic seconds."""


class Listener:
    """One connection that receives the hints of other replicas.

    Nothing is sent on a connection that only listens, so a dead one (after a failover behind a load balancer, or without its NAT
    entry) looks like a quiet one. After a while without messages, the listener notifies itself over this very connection: that
    comes back only if the socket, the server behind it and the LISTEN are all alive. Messages from others prove the same, so a
    fleet sends about as many of these checks as one replica.
    """

    def __init__(self, dsn: str, replica: str, heard: Callable[[Hint], None]) -> None:
        self._dsn = dsn
        self._replica = replica
        self._heard = heard
        self._proof = asyncio.Event()

    async def run(self, connected: Callable[[], None]) -> None:
        """Listen until the connection is lost; then return, or raise Unavailable (Silent)."""
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
            # in steps, so that a process that was suspended still sees its answer at the next step
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
        self._proof.set()  # nobody needs to wait for it any longer

    def _on_notify(self, _connection: asyncpg.Connection, _pid: int, _channel: str, payload: str) -> None:
        self._proof.set()
        try:
            hint = _HINT.decode(payload)
        except msgspec.DecodeError:
            return  # the listener's own check, or a notification that is not from a replica: anyone who may connect may notify
        if hint.replica != self._replica:
            self._heard(hint)


async def _happens(event: asyncio.Event, seconds: float) -> bool:
    """Return whether the event is set within that time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
