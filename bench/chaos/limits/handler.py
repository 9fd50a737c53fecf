"""The handler: takes a moment, and often enough wants a call again, at once or later."""

import asyncio
import random
from typing import cast

from bench.handler import OK, content_length

MAX_ANSWER_SECONDS = 0.25
AGAIN = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"
FAILED = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"
STOPPED = b"HTTP/1.1 400 Bad Request\r\nsluice-retry: no\r\ncontent-length: 0\r\n\r\n"
ANSWERS = ((OK, 90), (AGAIN, 5), (FAILED, 4), (STOPPED, 1))


class Trying(asyncio.Protocol):
    """A connection, on which one call comes after the other."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or len(self._buffer) < end + 4 + content_length(self._buffer[:end].lower()):
            return
        self._buffer = b""
        asyncio.get_running_loop().call_later(self._dice.uniform(0, MAX_ANSWER_SECONDS), self._answer)

    def _answer(self) -> None:
        if not self._transport.is_closing():
            (answer,) = self._dice.choices([answer for answer, _ in ANSWERS], [weight for _, weight in ANSWERS])
            self._transport.write(answer)
