"""The source `redis_stream`: a stream of Redis, read by a consumer group in which each replica is a consumer.

Entries are read in batches, and stay pending in the group until their tasks are committed. What a consumer leaves pending for
`claim_idle_seconds`, because its process has died, another takes over (XCLAIM); while entries are being enqueued, they are claimed
again and again, so that this does not happen to them. Nothing is deleted: how long a stream keeps its entries is up to
whoever writes it. An entry that has been trimmed is lost, and counted:

- before it was read: the group has read fewer entries than were added before the first that is left (_SKIPPED)
- while it was pending, and nobody had it in hand any more: it is found when it would be taken over
- while it was in hand: it is found when it is given back

A group that has disappeared (FLUSHALL, a server that has lost its data) is made again. Redis 7 and Valkey count what this needs.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from app.delivery.redis_stream.addresses import MISSING, RedisFailure, check_redis, parse_redis_url
from app.delivery.webhook.egress import EgressPolicy
from app.domain.errors import Refusal
from app.domain.headers import folded
from app.domain.sources import SourceDefinition
from app.sources.kinds import MAX_COUNT, Depth, Message, SourceError

if TYPE_CHECKING:
    from app.delivery.redis_stream.connection import Command

BLOCK_SECONDS = 5.0
"""How long a receive waits for an entry, and how often it looks for what others have left."""
CALL_SECONDS = 10.0
MAX_REPLY_BYTES = 32 * 1024**2
"""Of one read. Fewer entries are asked for after one that was larger."""
MAX_ENTRIES = 100
FORGOTTEN_SECONDS = 86_400
"""A consumer of a replica that has been gone for so long, and has left nothing, is deleted."""
FIRST_MILLISECONDS = 10**12
"""Ids of entries below it were not made from the clock."""
PREFIX = "sluice:"
"""Of consumers."""
CORRELATION_FIELDS = ("correlation-id", "x-correlation-id", "sluice-correlation-id")
"""In their folded form, in order of preference."""

_MAP = """
local function map(list) local m = {} for i = 1, #list, 2 do m[list[i]] = list[i + 1] end return m end
"""
_SKIPPED = (
    _MAP
    + """
local function less(a, b) if #a ~= #b then return #a < #b end return a < b end
local function before(a, b)
  local am, as, bm, bs = a:match('%d+'), a:match('%d+$'), b:match('%d+'), b:match('%d+$')
  if am ~= bm then return less(am, bm) end
  return less(as, bs)
end
local stream, groups = redis.pcall('XINFO', 'STREAM', KEYS[1]), redis.pcall('XINFO', 'GROUPS', KEYS[1])
if stream.err or groups.err then return 0 end
stream = map(stream)
for _, group in ipairs(groups) do
  group = map(group)
  local read, last, first = group['entries-read'], group['last-delivered-id'], stream['first-entry']
  if group.name == ARGV[1] and read and (not first or before(last, first[1])) then
    local passed = stream['entries-added'] - stream.length
    if passed > read then
      redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], last, 'ENTRIESREAD', passed)
      return passed - read
    end
  end
end
return 0
"""
)
"""Returns how many entries were trimmed before the group has read them, once: it corrects the group's count of what it has read."""
_FORGET = (
    _MAP
    + """
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if consumers.err then return 0 end
for _, consumer in ipairs(consumers) do
  consumer = map(consumer)
  local idle = consumer.name:sub(1, #ARGV[4]) == ARGV[4] and consumer.idle > tonumber(ARGV[3])
  if consumer.pending == 0 and (idle or consumer.name == ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
  end
end
return 0
"""
)
"""Deletes a consumer, and those that have been gone for long, unless entries are pending for them."""


class RedisStreamSource:
    """One stream, read by one replica."""

    def __init__(self, egress: EgressPolicy, tenant: str, definition: SourceDefinition, name: str) -> None:
        from app.delivery.redis_stream.connection import RedisConnection  # an extra

        address = parse_redis_url(definition.url or "")
        self._reading = RedisConnection(egress, tenant, address, max_reply_bytes=MAX_REPLY_BYTES)
        self._other = RedisConnection(egress, tenant, address, max_reply_bytes=MAX_REPLY_BYTES)
        """For what goes on while entries are waited for."""
        self._turn = asyncio.Lock()
        self._stream = definition.stream or ""
        self._group = definition.group or ""
        self._field = (definition.field or "body").encode()
        self._from_start = definition.start != "$"
        self._idle_ms = (definition.claim_idle_seconds or 60) * 1000
        self._consumer = PREFIX + name
        self._skipped = ("EVAL", _SKIPPED, 1, self._stream, self._group)
        self._counting = True
        self._joined = False
        self._position = (0, 0)
        """A group that is made again begins here, unless it begins at the start."""
        self._most = MAX_ENTRIES
        self._claim_at = 0.0
        self._lost = 0
        self.extend_seconds: float | None = self._idle_ms / 3000  # two calls may fail before others take the entries

    async def receive(self, most: int) -> list[Message]:
        most = min(most, self._most)
        try:
            with _understanding():
                messages = await self._receive(most)
        except RedisFailure as failure:
            await self._reading.aclose()  # the server that fails may no longer be the right one
            if failure.outcome == "too_large":
                self._most = max(1, most // 2)
            raise _source_error(failure) from None
        if len(messages) == self._most < MAX_ENTRIES:
            self._most += 1
        return messages

    async def extend(self, messages: Sequence[Message]) -> None:
        await self._claim_again(messages, 0)

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        if messages:
            await self._ask(("XACK", self._stream, self._group, *(message.handle for message in messages)))

    async def give_back(self, messages: Sequence[Message]) -> None:
        left = await self._claim_again(messages, self._idle_ms)
        self._lost += len(messages) - left  # trimmed, so nobody will receive them

    def take_lost(self) -> int:
        lost, self._lost = self._lost, 0
        return lost

    async def measure(self) -> Depth:
        with _understanding():
            return await self._measure()

    async def check(self) -> None:
        with _understanding():
            await self._group_info()

    async def aclose(self) -> None:
        if self._joined:
            with contextlib.suppress(SourceError):
                await self._forget()
        await self._reading.aclose()
        await self._other.aclose()

    async def _measure(self) -> Depth:
        group = await self._group_info()
        length = _count(await self._ask(("XLEN", self._stream)))
        if group is None:
            return Depth(length if self._from_start else 0, None)
        last = group["last-delivered-id"].decode()
        pending, next_up, (seconds, _) = await self._ask_all(
            ("XPENDING", self._stream, self._group),
            ("XRANGE", self._stream, f"({last}", "+", "COUNT", 1),
            ("TIME",),
        )
        waiting = [pending[1]] if pending[0] else [entry[0] for entry in next_up]
        oldest = min((_id_of(entry)[0] for entry in waiting), default=0)
        age = max(0.0, int(seconds) - oldest / 1000) if oldest >= FIRST_MILLISECONDS else None
        lag = group.get("lag")
        # entries that have been trimmed are still in Redis's lag
        return Depth(None if lag is None else min(max(0, lag), length) + _count(group["pending"]), age)

    # reading

    async def _receive(self, most: int) -> list[Message]:
        """Raises RedisFailure."""
        if not self._joined:
            await self._make_group()
            self._joined = True
        entries = await self._claim(most) or await self._read(most)
        if entries:
            self._position = max(self._position, *(_id_of(entry[0]) for entry in entries))
        return [self._message(entry, fields or []) for entry, fields in entries]

    async def _claim(self, most: int) -> list[Any]:
        """Take over entries that others, or this replica before a failure, have left. Nothing unless it is time.

        XAUTOCLAIM would do the same in one step, but it also drops trimmed entries that others have in hand still, and names them
        like those that nobody will ever bring.
        """
        now = asyncio.get_running_loop().time()
        if now < self._claim_at:
            return []
        self._claim_at = now + BLOCK_SECONDS
        idle = ("XPENDING", self._stream, self._group, "IDLE", self._idle_ms)
        (left,) = await self._reading.run(((*idle, "-", "+", most),), CALL_SECONDS)
        if not await self._is_there(left) or not left:
            return []
        ids = [entry[0] for entry in left]
        # What is still idle in the transaction and is not claimed by it, is gone.
        again = (*idle, ids[0], ids[-1], 10 * len(ids))
        claim = ("XCLAIM", self._stream, self._group, self._consumer, self._idle_ms, *ids)
        still, claimed = await self._together(again, claim)
        if not await self._is_there(still) or not await self._is_there(claimed):
            return []
        entries = [entry for entry in claimed if entry is not None]
        gone = {entry[0] for entry in still}.intersection(ids) - {entry[0] for entry in entries}
        if gone:
            self._lost += len(gone)
            await self._reading.run((("XACK", self._stream, self._group, *gone),), CALL_SECONDS)
        if len(ids) == most:
            self._claim_at = 0.0  # there may be more
        return entries

    async def _read(self, most: int) -> list[Any]:
        read = ("XREADGROUP", "GROUP", self._group, self._consumer, "COUNT", most)
        here = ("STREAMS", self._stream, ">")
        if self._counting:
            # in one transaction, because entries that are trimmed in between would not be counted
            skipped, found = await self._together(self._skipped, (*read, *here))
            if isinstance(skipped, int):
                self._lost += _count(skipped)
            self._counting = not (isinstance(skipped, RedisFailure) and skipped.permanent)
            if self._counting and not await self._is_there(found):
                return []
            if found and not isinstance(found, RedisFailure):
                return list(found[0][1])
        if not self._claim_at:
            return []
        wait = ("BLOCK", int(BLOCK_SECONDS * 1000))
        (found,) = await self._reading.run(((*read, *wait, *here),), BLOCK_SECONDS + CALL_SECONDS)
        return list(found[0][1]) if await self._is_there(found) and found else []

    async def _together(self, *commands: "Command") -> list[Any]:
        """Return the replies of a transaction; of single commands, if the user may not use transactions. Raises RedisFailure."""
        begun, *queued, done = await self._reading.run((("MULTI",), *commands, ("EXEC",)), CALL_SECONDS)
        if isinstance(begun, RedisFailure):
            return queued
        if isinstance(done, RedisFailure):
            return [reply if isinstance(reply, RedisFailure) else done for reply in queued]
        return list(done)

    async def _is_there(self, reply: Any) -> bool:
        """Return whether a reply is no error; make the group if that is what it lacked. Raises RedisFailure."""
        if not isinstance(reply, RedisFailure):
            return True
        if reply.code not in ("NOGROUP", "UNBLOCKED"):
            raise reply
        await self._make_group()
        return False

    async def _make_group(self) -> None:
        """Make the group unless it is there. Raises RedisFailure."""
        (info,) = await self._reading.run((("XINFO", "STREAM", self._stream),), CALL_SECONDS)
        last = (0, 0) if isinstance(info, RedisFailure) else _id_of(_map(info)["last-generated-id"])
        if not self._joined:
            self._position = last
        # ids that begin anew are those of another stream
        start = (0, 0) if self._from_start or last < self._position else self._position
        create = ("XGROUP", "CREATE", self._stream, self._group, f"{start[0]}-{start[1]}", "MKSTREAM")
        (made,) = await self._reading.run((create,), CALL_SECONDS)
        if isinstance(made, RedisFailure) and made.code != "BUSYGROUP":
            raise made

    def _message(self, entry: bytes, fields: list[bytes]) -> Message:
        """Return an entry as a message. One without the field is its fields, as a JSON object."""
        entry_id = entry.decode()
        pairs = list(zip(fields[::2], fields[1::2], strict=False))
        body = next((value for name, value in pairs if name == self._field), None)
        others = [(name, value) for name, value in pairs if name != self._field]
        headers = {
            name: value
            for name, value in ((_text(name), _text(value)) for name, value in others)
            if name is not None and value is not None
        }
        by_fold = {folded(name): value for name, value in reversed(headers.items())}
        traceparent = by_fold.get("traceparent")
        milliseconds, _ = _id_of(entry)
        return Message(
            key=f"redis:{self._stream}:{entry_id}",
            body=_object_of(pairs) if body is None else body,
            handle=entry_id,
            headers={} if body is None else headers,
            correlation_id=next((by_fold[name] for name in CORRELATION_FIELDS if name in by_fold), None),
            traceparent=traceparent,
            tracestate=by_fold.get("tracestate") if traceparent else None,
            sent_at=_instant(milliseconds),
        )

    # beside reading

    async def _claim_again(self, messages: Sequence[Message], idle_ms: int) -> int:
        """Return how many of the entries are still there."""
        if not messages:
            return 0
        ids = (message.handle for message in messages)
        claim = ("XCLAIM", self._stream, self._group, self._consumer, 0, *ids, "IDLE", idle_ms, "JUSTID")
        with _understanding():
            return min(len(messages), len(await self._ask(claim)))

    async def _group_info(self) -> dict[str, Any] | None:
        """Return what Redis says of the group; None if there is no such stream or group."""
        (groups,) = await self._run(("XINFO", "GROUPS", self._stream))
        if isinstance(groups, RedisFailure):
            if "no such key" in str(groups):
                return None
            raise _source_error(groups)
        found = (_map(group) for group in groups)
        return next((group for group in found if group["name"] == self._group.encode()), None)

    async def _forget(self) -> None:
        idle = FORGOTTEN_SECONDS * 1000
        await self._run(("EVAL", _FORGET, 1, self._stream, self._group, self._consumer, idle, PREFIX))

    async def _ask(self, command: "Command") -> Any:
        return (await self._ask_all(command))[0]

    async def _ask_all(self, *commands: "Command") -> list[Any]:
        replies = await self._run(*commands)
        for reply in replies:
            if isinstance(reply, RedisFailure):
                raise _source_error(reply)
        return replies

    async def _run(self, *commands: "Command") -> list[Any]:
        async with self._turn:
            try:
                return await self._other.run(commands, CALL_SECONDS)
            except RedisFailure as failure:
                raise _source_error(failure) from None


class RedisStreamKind:
    """The kind `redis_stream`."""

    def __init__(self, egress: EgressPolicy) -> None:
        self._egress = egress

    def check(self, definition: SourceDefinition) -> None:
        check_redis(self._egress, definition.url or "", "/url")

    def open(self, definition: SourceDefinition, name: str, tenant: str) -> RedisStreamSource:
        """Raises Refusal (bridge_unavailable)."""
        try:
            return RedisStreamSource(self._egress, tenant, definition, name)
        except ImportError:
            raise Refusal("bridge_unavailable", MISSING) from None

    async def aclose(self) -> None:
        pass


@contextlib.contextmanager
def _understanding() -> Iterator[None]:
    """Raises SourceError for replies that are not of Redis."""
    try:
        yield
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError):
        raise SourceError("the server has answered something that is not of Redis") from None


def _source_error(failure: RedisFailure) -> SourceError:
    return SourceError(str(failure), permanent=failure.permanent)


def _count(value: Any) -> int:
    """Return a number of entries. Raises ValueError if it cannot be one."""
    if not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
        raise ValueError(value)
    return value


def _id_of(text: bytes) -> tuple[int, int]:
    milliseconds, _, number = text.partition(b"-")
    return int(milliseconds), int(number or 0)


def _map(flat: list[Any]) -> dict[str, Any]:
    return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=False)}


def _text(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _object_of(pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return fields as a JSON object; a value that is not text as `{"base64": …}`. Of two with one name, the last counts."""
    given = {
        name.decode("utf-8", "replace"): {"base64": base64.b64encode(value).decode()} if text is None else text
        for name, value, text in ((name, value, _text(value)) for name, value in pairs)
    }
    return json.dumps(given, ensure_ascii=False).encode()


def _instant(milliseconds: int) -> datetime | None:
    if milliseconds < FIRST_MILLISECONDS:
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
