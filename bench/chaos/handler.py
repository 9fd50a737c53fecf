"""The handler of the chaos run: answers 200 to every call after a moment, so that kills and pauses meet calls under way."""

import asyncio
import random
from datetime import datetime
from typing import NamedTuple, cast

from bench.handler import OK, content_length

MAX_ANSWER_SECONDS = 0.3


class Call(NamedTuple):
    task: str
    schedule: str
    nominal_at: datetime


class Received(asyncio.Protocol):
    """A connection, on which one call comes after the other."""

    def __init__(self, calls: list[Call]) -> None:
        self._calls = calls
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        if len(self._buffer) < end + 4 + content_length(head):
            return
        self._buffer = b""
        self._calls.append(_call(head))
        asyncio.get_running_loop().call_later(random.uniform(0, MAX_ANSWER_SECONDS), self._answer)

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(OK)


def _call(head: bytes) -> Call:
    """`head` is in lower case, as names of schedules here are."""
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    nominal_at = datetime.fromisoformat(fields[b"sluice-scheduled-for"].decode().upper())
    return Call(fields[b"webhook-id"].decode(), fields[b"sluice-schedule"].decode(), nominal_at)
