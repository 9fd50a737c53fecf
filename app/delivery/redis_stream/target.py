"""Delivery to a stream of Redis: each task becomes one entry, added by XADD.

The payload is the field `body`; what a webhook has as headers, an entry has as fields. Redis answers a command in microseconds, and
what takes time is the way there and back: calls to one stream that are waiting go together, as one pipeline on one connection, in
the order in which they came. Each is answered by itself.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from app.delivery.carried import carried_by
from app.delivery.kinds import Call, Sending
from app.delivery.redis_stream.addresses import MISSING, RedisFailure, check_redis, parse_redis_url
from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.urls import UrlError
from app.domain.answers import Answer, NoAnswer
from app.domain.bridges import StreamAddress
from app.domain.handlers import HIDDEN, HandlerDefinition

if TYPE_CHECKING:
    from app.delivery.redis_stream.connection import Command, RedisConnection

MAX_PIPELINE = 100
MAX_PIPELINE_BYTES = 4 * 1024**2
"""Of payloads in one pipeline, unless a single one is larger."""
MAX_REPLY_BYTES = 1024**2
IDLE_SECONDS = 15.0
"""How long a connection is kept that nobody uses."""

_ENTRY_ID = re.compile(rb"[0-9]+-[0-9]+")

Ended = Callable[[Answer | NoAnswer | Exception], None]


class RedisStreams:
    """The delivery kind `redis_stream`."""

    def __init__(self, egress: EgressPolicy) -> None:
        self._egress = egress
        self._lanes: dict[tuple[str, str, str], _Lane] = {}

    def check(self, definition: HandlerDefinition) -> None:
        check_redis(self._egress, definition.url or "", "/url")

    def send(self, call: Call, now: datetime, ended: Ended) -> Sending:
        to = _address(call)
        # A stream has a connection of its own, so that one server that does not answer holds up nobody else.
        key = (call.tenant, to.url, to.stream)
        lane = self._lanes.get(key)
        if lane is None:
            try:
                lane = self._lanes[key] = _Lane(self._connection(call.tenant, to.url), lambda: self._lanes.pop(key))
            except ImportError:
                return asyncio.get_running_loop().call_soon(ended, NoAnswer("failed", MISSING))
            except UrlError as error:
                return asyncio.get_running_loop().call_soon(ended, NoAnswer("failed", f"the URL {error}"))
        return lane.add(_Adding(_command(call, to), len(call.payload), call.timeout_seconds, ended))

    def preview(self, call: Call, now: datetime) -> dict[str, Any]:
        to = _address(call)
        return {
            "url": _shown(to.url),
            "headers": {"stream": to.stream, **carried_by(call)},
            "body": call.payload.decode("utf-8", "replace"),
        }

    async def aclose(self) -> None:
        """Close all connections; calls in flight fail as unreachable."""
        for lane in list(self._lanes.values()):
            await lane.aclose()

    def _connection(self, tenant: str, url: str) -> "RedisConnection":
        """Raises ImportError, UrlError."""
        from app.delivery.redis_stream.connection import RedisConnection  # an extra

        return RedisConnection(self._egress, tenant, parse_redis_url(url), max_reply_bytes=MAX_REPLY_BYTES)


class _Adding:
    """An entry on its way."""

    def __init__(self, command: "Command", size: int, seconds: float, ended: Ended) -> None:
        loop = asyncio.get_running_loop()
        self.command = command
        self.size = size
        self.deadline = loop.time() + seconds
        self._seconds = seconds
        self._ended: Ended | None = ended
        self._timer = loop.call_at(self.deadline, self._late)

    @property
    def over(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._ended is None

    def tell(self, answer: Answer | NoAnswer | Exception) -> None:
        ended, self._ended = self._ended, None
        self._timer.cancel()
        if ended is not None:
            ended(answer)

    def cancel(self) -> None:
        """What has been sent already cannot be called back: it shares its connection with others."""
        self._ended = None
        self._timer.cancel()

    def _late(self) -> None:
        self.tell(NoAnswer("timeout", f"there was no answer within {self._seconds:g} s"))


class _Lane:
    """One stream's connection, and the entries that wait for it. `closed` is called when it has been idle for a while."""

    def __init__(self, connection: "RedisConnection", closed: Callable[[], object]) -> None:
        self._connection = connection
        self._closed = closed
        self._waiting: deque[_Adding] = deque()
        self._came = asyncio.Event()
        self._running = asyncio.get_running_loop().create_task(self._run())

    def add(self, adding: _Adding) -> Sending:
        self._waiting.append(adding)
        self._came.set()
        return adding

    async def aclose(self) -> None:
        self._running.cancel()
        await asyncio.wait((self._running,))

    async def _run(self) -> None:
        under_way: Sequence[_Adding] = ()
        try:
            while await self._some_came():
                under_way = self._next()
                await self._send(under_way)
        finally:
            self._closed()
            for adding in (*under_way, *self._waiting):
                adding.tell(NoAnswer("unreachable", "the connection has been closed"))
            await self._connection.aclose()

    async def _some_came(self) -> bool:
        """Wait for an entry; return False if none has come for a while."""
        if not self._waiting:
            self._came.clear()
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._came.wait()
            except TimeoutError:
                return bool(self._waiting)
        return True

    def _next(self) -> list[_Adding]:
        """Return the entries of the next pipeline, in their order."""
        taken: list[_Adding] = []
        size = 0
        while self._waiting and len(taken) < MAX_PIPELINE:
            size += self._waiting[0].size
            if taken and size > MAX_PIPELINE_BYTES:
                break
            adding = self._waiting.popleft()
            if not adding.over:
                taken.append(adding)
        return taken

    async def _send(self, taken: Sequence[_Adding]) -> None:
        """Send a pipeline, and tell each entry what came of it.

        Redis answers in order: if the first is late to be answered, the connection is given up, and with it the others.
        """
        if not taken:
            return
        left = min(adding.deadline for adding in taken) - asyncio.get_running_loop().time()
        try:
            replies: Sequence[Any] = await self._connection.run([adding.command for adding in taken], max(0.0, left))
        except RedisFailure as failure:
            replies = [failure] * len(taken)
        except Exception as error:
            # otherwise nobody would ever hear of these calls, and their leases would be renewed for good
            replies = [error] * len(taken)
        for adding, reply in zip(taken, replies, strict=True):
            adding.tell(_answer(reply))


def _answer(reply: Any) -> Answer | NoAnswer | Exception:
    if isinstance(reply, RedisFailure):
        return NoAnswer(reply.outcome, str(reply))
    if isinstance(reply, Exception):
        return reply
    if not isinstance(reply, bytes) or _ENTRY_ID.fullmatch(reply) is None:
        return NoAnswer("failed", "the server answered XADD with something that is not of Redis")
    return Answer(200, {}, reply)


def _shown(url: str) -> str:
    """Return the server and the database of a URL, without its password; one that could not be decrypted is empty."""
    if not url:
        return HIDDEN
    address = parse_redis_url(url)
    return f"{'rediss' if address.tls else 'redis'}://{address.parsed.authority}/{address.database}"


def _command(call: Call, to: StreamAddress) -> "Command":
    most = () if to.maxlen is None else ("MAXLEN", "~", to.maxlen)
    fields = (part for field in carried_by(call).items() for part in field)
    return ("XADD", to.stream, *most, "*", "body", call.payload, *fields)


def _address(call: Call) -> StreamAddress:
    return cast(StreamAddress, call.address)
