"""A request and its whole answer, for the hot route, without ASGI's messages.

uvicorn's `send` checks each header of any application, and a message per part goes through every layer in between: a tenth of what
an enqueue costs.
"""

from collections.abc import Iterable

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from app.edge.admission import Hold

CLOSE = (b"connection", b"close")


class Exchange:
    """One request, whose body is read and whose answer is written in one piece.

    It refers to the cycle, which refers to the scope: whoever takes it from the scope removes it there, or each request would be
    left to the garbage collector.
    """

    __slots__ = ("_cycle", "_hold", "status")

    def __init__(self, cycle: RequestResponseCycle, hold: Hold) -> None:
        self._cycle = cycle
        self._hold = hold
        self.status = 0
        """Of the answer; 0 before."""

    def arrived(self, max_bytes: int) -> bytes | None:
        """Return the body; None if it must be read as any other: it has not arrived, or will be refused."""
        cycle = self._cycle
        if cycle.more_body or self._hold.over or len(cycle.body) > max_bytes:
            return None
        body = bytes(cycle.body)
        cycle.body.clear()
        return body

    async def answer(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Write the answer. `headers` are ours, and not checked; the length of `body` is one of them."""
        cycle = self._cycle
        self.status = status
        if cycle.flow.write_paused:
            await cycle.flow.drain()
        cycle.response_started = True
        parts = [STATUS_LINE[status]]
        for name, value in (*cycle.default_headers, *headers, *(() if cycle.keep_alive else (CLOSE,))):
            parts += (name, b": ", value, b"\r\n")
        parts += (b"\r\n", body)
        cycle.transport.write(b"".join(parts))
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
