"""The transport under uvicorn's protocol: one write per loop iteration, and a close that lets the client read its answer."""

import asyncio
from collections.abc import Callable
from typing import Any

LINGER_SECONDS = 5.0
"""How long a client that does not read has after the close."""


class Corked:
    """A transport that joins all writes of one loop iteration: uvicorn writes head and body separately, and each write is a system
    call. On close it lets a client finish sending, and waits a limited time for one that does not
    read.

    `reading` is called when the application resumes reading after a pause; `lingers` says at a close whether the client is still
    sending and may finish.
    """

    __slots__ = ("_lingers", "_loop", "_parts", "_reading", "_transport", "is_closing")

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        *,
        reading: Callable[[], None],
        lingers: Callable[[], bool],
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._reading = reading
        self._lingers = lingers
        self.is_closing = transport.is_closing
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def _flush(self) -> None:
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            if not self.is_closing():
                self._transport.write(data)

    def resume_reading(self) -> None:
        self._reading()
        self._transport.resume_reading()

    def close(self) -> None:
        self._flush()
        if not self.is_closing() and self._lingers():
            self._transport.write_eof()
            return
        if not self.is_closing() and self._transport.get_write_buffer_size():
            self._loop.call_later(LINGER_SECONDS, self._transport.abort)
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
