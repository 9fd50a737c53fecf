"""Wake-ups between replicas over LISTEN and NOTIFY: hints, never the truth.

A NOTIFY inside the enqueue transaction cuts concurrent inserters to a third, so it is sent outside, coalesced.
"""

import asyncio
from collections.abc import Callable

import asyncpg
import msgspec

from app.store.db import Database, connect, translated

CHANNEL = "sluice"
MAX_PAYLOAD_BYTES = 7500


class Hint(msgspec.Struct, omit_defaults=True):
    """What one replica tells the others."""

    replica: str
    lanes: list[tuple[int, int]] = []
    """Lanes with new work."""
    freed: bool = False
    """A slot of some limit came free."""
    stir: bool = False
    """A definition changed: look at everything."""
    revoked: list[str] = []
    """Tasks whose lease was revoked."""


_HINT = msgspec.json.Decoder(Hint)


async def send(db: Database, hint: Hint) -> None:
    """A hint too long for one NOTIFY becomes a stir; what it revoked is then found by the next renewal."""
    text = msgspec.json.encode(hint).decode()
    if len(text) > MAX_PAYLOAD_BYTES:
        text = msgspec.json.encode(Hint(hint.replica, freed=True, stir=True)).decode()
    await db.fetch("select pg_notify($1, $2)", CHANNEL, text)


class Listener:
    """One connection that hears the hints of others. `run` returns, or raises Unavailable, when it is lost."""

    def __init__(self, dsn: str, replica: str, heard: Callable[[Hint], None]) -> None:
        self._dsn = dsn
        self._replica = replica
        self._heard = heard

    async def run(self, connected: Callable[[], None]) -> None:
        lost = asyncio.Event()
        async with translated():
            connection = await connect(self._dsn)
        try:
            connection.add_termination_listener(lambda _: lost.set())
            async with translated():
                await connection.add_listener(CHANNEL, self._on_notify)
            connected()
            await lost.wait()
        finally:
            connection.terminate()

    def _on_notify(self, _connection: asyncpg.Connection, _pid: int, _channel: str, payload: str) -> None:
        try:
            hint = _HINT.decode(payload)
        except msgspec.DecodeError:
            return  # anyone who may connect may notify; what is not ours is nothing
        if hint.replica != self._replica:
            self._heard(hint)
