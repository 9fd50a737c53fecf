"""The proof of a listener: what it takes for silence, and what it does not."""

import asyncio
import socket
import time
from typing import Any

import pytest

from app.store import notify
from app.store.notify import CHANNEL, Hint, Listener, Silent

pytestmark = pytest.mark.anyio


class Connection:
    """A process that asks over it stands still until after its patience; the answer has arrived meanwhile, or never does."""

    def __init__(self, *, answers: bool) -> None:
        self.here, self.there = socket.socketpair()
        self.here.setblocking(False)
        self._answers = answers

    async def execute(self, _sql: str) -> str:
        if self._answers:
            self.there.send(b"!")
        time.sleep(notify.ANSWER_SECONDS * 1.5)  # noqa: ASYNC251  # that is the point
        return "NOTIFY"


async def proven(connection: Any) -> None:
    listener = Listener("", "here", lambda hint: None)
    loop = asyncio.get_running_loop()
    loop.add_reader(connection.here, lambda: listener._on_notify(connection, 0, CHANNEL, ""))
    try:
        await listener._prove(connection)
    finally:
        loop.remove_reader(connection.here)
        connection.here.close()
        connection.there.close()


async def test_a_process_that_stood_still_does_not_take_its_own_pause_for_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notify, "ANSWER_SECONDS", 0.3)
    await proven(Connection(answers=True))


async def test_a_connection_on_which_nothing_comes_back_is_silent_since_it_was_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notify, "ANSWER_SECONDS", 0.1)
    began = time.monotonic()
    with pytest.raises(Silent) as silent:
        await proven(Connection(answers=False))
    assert began <= silent.value.asked_at < time.monotonic()


@pytest.mark.parametrize(
    "payload",
    [
        '{"replica":"x","lanes":[[9223372036854775808,0]]}',
        '{"replica":"x","lanes":[[1,-1]]}',
        '{"replica":"x","freed":[[1,2,99999999999999999999]]}',
        "[" * 4000,
    ],
)
def test_a_notification_with_what_is_no_id_is_ignored(payload: str) -> None:
    """Any role of the database may send one, and a claim of such a lane would fail time and again."""
    heard: list[Hint] = []
    Listener("", "here", heard.append)._on_notify(None, 0, CHANNEL, payload)
    assert not heard
