"""The source redis_stream against a real server: what it takes, takes over, acknowledges, gives back and counts as lost."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from app.delivery.redis_stream.addresses import RedisFailure
from app.delivery.webhook.egress import EgressPolicy
from app.domain.sources import SourceDefinition
from app.sources import redis_stream
from app.sources.kinds import Depth, Message, SourceError
from app.sources.redis_stream import RedisStreamKind, RedisStreamSource
from tests.redis_server import RedisServer, free_port
from tests.support import poll

pytestmark = [pytest.mark.ci, pytest.mark.anyio]

Open = Callable[..., RedisStreamSource]
StartRedis = Callable[..., Awaitable[RedisServer]]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_stream, "BLOCK_SECONDS", 0.1)


@pytest.fixture
async def open_source() -> AsyncIterator[Open]:
    """Opens sources as replicas do, each under the name of another one, with further fields of the definition."""
    kind = RedisStreamKind(EgressPolicy(["127.0.0.0/8"]))
    async with AsyncExitStack() as stack:

        def opened(redis: RedisServer | str, name: str = "a", **fields: Any) -> RedisStreamSource:
            url = redis if isinstance(redis, str) else redis.url
            given = {"url": url, "stream": "s", "group": "sluice", **fields}
            source = kind.open(SourceDefinition("redis_stream", "q", **given), name, "default")
            stack.push_async_callback(source.aclose)
            return source

        yield opened


async def bodies(source: RedisStreamSource, most: int = 100) -> list[bytes]:
    return [message.body for message in await source.receive(most)]


async def until_some(source: RedisStreamSource) -> list[Message]:
    async with asyncio.timeout(20):
        while True:
            if messages := await source.receive(100):
                return messages


async def test_an_entry_comes_with_all_that_it_has(redis: RedisServer, open_source: Open) -> None:
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    fields: dict[str | bytes, str | bytes] = {
        "customer": "ada",
        "body": b'{"n": 1}',
        "correlation_id": "c1",
        "traceparent": trace,
        "seal": b"\xff",
    }
    (entry,) = await redis.add("s", fields)
    (message,) = await open_source(redis).receive(100)
    assert (message.key, message.body, message.handle) == (f"redis:s:{entry}", b'{"n": 1}', entry)
    assert message.headers == {"customer": "ada", "correlation_id": "c1", "traceparent": trace}
    assert (message.correlation_id, message.traceparent) == ("c1", trace)
    assert message.sent_at is not None and message.group is None


async def test_an_entry_without_the_field_is_all_of_its_fields(redis: RedisServer, open_source: Open) -> None:
    await redis.add("s", {"name": "ada", "seal": b"\xff\x00"})
    (body,) = await bodies(open_source(redis, field="payload"))
    assert json.loads(body) == {"name": "ada", "seal": {"base64": "/wA="}}


async def test_entries_come_in_their_order_and_once_for_two_replicas(redis: RedisServer, open_source: Open) -> None:
    await redis.add("s", *(str(n) for n in range(30)))
    first, second = open_source(redis, "a"), open_source(redis, "b")
    taken = [*await bodies(first, 10), *await bodies(second, 10), *await bodies(first)]
    assert taken == [str(n).encode() for n in range(30)]
    assert await bodies(second) == []


async def test_a_group_begins_where_it_is_told_to(redis: RedisServer, open_source: Open) -> None:
    await redis.add("s", "old")
    late = open_source(redis, group="late", start="$")
    assert await bodies(late) == []
    await redis.add("s", "new")
    assert [message.body for message in await until_some(late)] == [b"new"]
    assert await bodies(open_source(redis, group="whole")) == [b"old", b"new"]


async def test_what_is_acknowledged_never_comes_again(redis: RedisServer, open_source: Open) -> None:
    await redis.add("s", "1", "2")
    dying = open_source(redis, "dying", claim_idle_seconds=1)
    await dying.acknowledge((await dying.receive(100))[:1])
    assert (await redis.group("s"))["pending"] == 1
    assert [message.body for message in await until_some(open_source(redis, "b", claim_idle_seconds=1))] == [b"2"]


async def test_entries_in_hand_are_not_taken_over_while_they_are_extended(
    redis: RedisServer, open_source: Open
) -> None:
    await redis.add("s", "1", "2")
    slow, other = open_source(redis, "slow", claim_idle_seconds=1), open_source(redis, "other", claim_idle_seconds=1)
    messages = await slow.receive(100)
    assert slow.extend_seconds is not None and slow.extend_seconds < 0.5
    await asyncio.sleep(0.7)  # the idle time of the server's clock is what is at stake
    await slow.extend(messages[:1])
    assert [message.body for message in await until_some(other)] == [b"2"]


async def test_entries_given_back_are_taken_by_others_at_once(redis: RedisServer, open_source: Open) -> None:
    await redis.add("s", "1")
    first = open_source(redis, claim_idle_seconds=3600)
    await first.give_back(await first.receive(100))
    async with asyncio.timeout(5):
        taken = await until_some(open_source(redis, "b", claim_idle_seconds=3600))
    assert [message.body for message in taken] == [b"1"]


async def test_pending_entries_that_were_trimmed_are_lost_once(redis: RedisServer, open_source: Open) -> None:
    await redis.add("s", *"12345")
    await open_source(redis, "dead", claim_idle_seconds=1).receive(100)
    await redis.ask("XTRIM", "s", "MAXLEN", 2)
    other = open_source(redis, "b", claim_idle_seconds=1)
    assert [message.body for message in await until_some(other)] == [b"4", b"5"]
    assert (other.take_lost(), other.take_lost()) == (3, 0)


async def test_trimmed_entries_that_somebody_has_in_hand_are_not_lost(redis: RedisServer, open_source: Open) -> None:
    await redis.add("s", *"12")
    first, second = open_source(redis, "a"), open_source(redis, "b")
    messages = await first.receive(100)
    await redis.ask("XTRIM", "s", "MAXLEN", 0)
    assert await bodies(second) == []
    await first.acknowledge(messages)
    assert first.take_lost() + second.take_lost() == 0


async def test_entries_that_are_given_back_after_they_were_trimmed_are_lost_once(
    redis: RedisServer, open_source: Open
) -> None:
    await redis.add("s", *"1234")
    source, other = open_source(redis, claim_idle_seconds=1), open_source(redis, "other", claim_idle_seconds=1)
    messages = await source.receive(10)
    await redis.ask("XTRIM", "s", "MAXLEN", 1)
    await source.extend(messages)
    await source.give_back(messages)
    assert source.take_lost() == 3
    assert [message.body for message in await other.receive(10)] == [b"4"]
    assert (source.take_lost(), other.take_lost()) == (0, 0)


async def test_entries_that_were_trimmed_unread_are_lost_once(redis: RedisServer, open_source: Open) -> None:
    await redis.add("s", *"12345")
    first, second = open_source(redis, "a"), open_source(redis, "b")
    assert await bodies(first, 2) == [b"1", b"2"]
    await redis.ask("XTRIM", "s", "MAXLEN", 1)
    assert await bodies(second, 100) == [b"5"]
    assert await bodies(first, 100) == []
    assert first.take_lost() + second.take_lost() == 2
    await redis.add("s", *"678")
    await redis.ask("XTRIM", "s", "MAXLEN", 0)
    assert await bodies(first, 100) == await bodies(second, 100) == []
    assert first.take_lost() + second.take_lost() == 3


async def test_entries_that_are_deleted_after_they_were_read_are_not_lost(
    redis: RedisServer, open_source: Open
) -> None:
    source = open_source(redis)
    for round_ in range(3):
        ids = await redis.add("s", *"1234")
        assert len(await source.receive(100)) == 4, round_
        await redis.ask("XDEL", "s", *ids[1:])
    assert source.take_lost() == 0


@pytest.mark.parametrize("start", ["0", "$"])
@pytest.mark.parametrize("gone", [("FLUSHALL",), ("DEL", "s"), ("XGROUP", "DESTROY", "s", "sluice")])
async def test_a_group_that_has_gone_is_made_again(
    redis: RedisServer, open_source: Open, start: str, gone: tuple[str, ...]
) -> None:
    source = open_source(redis, start=start)
    await source.receive(100)
    await redis.add("s", "1")
    await source.acknowledge(await until_some(source))
    await redis.ask(*gone)
    await redis.add("s", "2")
    assert (await until_some(source))[-1].body == b"2"


async def test_a_receive_outlives_the_stream_that_it_waits_for(
    redis: RedisServer, open_source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_stream, "BLOCK_SECONDS", 20.0)
    source = open_source(redis)
    waiting = asyncio.create_task(source.receive(100))

    async def blocked() -> bool:
        return b"blocked_clients:1" in await redis.ask("INFO", "clients")

    await poll(blocked)
    await redis.ask("FLUSHALL")
    assert await waiting == []
    await redis.add("s", "1")
    assert await bodies(source) == [b"1"]


async def test_a_server_that_is_killed_is_told_and_found_again(redis: RedisServer, open_source: Open) -> None:
    await redis.add("s", "1", "2")
    source = open_source(redis, claim_idle_seconds=1)
    (first,) = await source.receive(1)
    await redis.kill()
    for failing in (source.receive(1), source.acknowledge([first]), source.measure(), source.check()):
        with pytest.raises(SourceError, match=r"failed|could not connect") as error:
            await failing
        assert not error.value.permanent
    await redis.start()
    await source.acknowledge([first])
    assert [message.body for message in await until_some(source)] == [b"2"]


async def test_a_wrong_password_is_told_without_it(start_redis: StartRedis, open_source: Open) -> None:
    redis = await start_redis(requirepass="hunter22")
    for userinfo in ("", ":hunter23@", "nobody:hunter23@"):
        source = open_source(f"redis://{userinfo}127.0.0.1:{redis.port}")
        with pytest.raises(SourceError) as error:
            await source.receive(1)
        assert error.value.permanent and "hunter" not in str(error.value)
    await open_source(f"redis://:hunter22@127.0.0.1:{redis.port}").check()


async def test_a_key_that_is_no_stream_is_told(redis: RedisServer, open_source: Open) -> None:
    await redis.ask("SET", "s", "1")
    for failing in (open_source(redis).receive(1), open_source(redis).check(), open_source(redis).measure()):
        with pytest.raises(SourceError, match="WRONGTYPE") as error:
            await failing
        assert error.value.permanent


async def test_a_user_who_may_not_run_scripts_reads_all_the_same(redis: RedisServer, open_source: Open) -> None:
    await redis.ask("ACL", "SETUSER", "ada", "on", ">pw", "~*", "+@stream", "+@connection")
    await redis.add("s", "1")
    source = open_source(f"redis://ada:pw@127.0.0.1:{redis.port}")
    (message,) = await until_some(source)
    await source.acknowledge([message])
    await redis.ask("ACL", "SETUSER", "ada", "-xack")
    with pytest.raises(SourceError, match="permission") as error:
        await source.acknowledge([message])
    assert error.value.permanent


async def test_what_waits_is_measured(redis: RedisServer, open_source: Open) -> None:
    source = open_source(redis)
    assert await source.measure() == Depth(0, None)
    await redis.add("s", *"123")
    lag, age = await source.measure()
    assert lag == 3
    messages = await source.receive(2)
    lag, age = await source.measure()
    assert lag == 3 and age is not None and 0 <= age < 60
    await source.acknowledge(messages)
    await redis.ask("XTRIM", "s", "MAXLEN", 0)
    assert (await source.measure()).lag == 0


async def test_consumers_leave_the_group_but_never_with_entries(redis: RedisServer, open_source: Open) -> None:
    await redis.add("s", "1")
    holding, idle = open_source(redis, "holding"), open_source(redis, "idle")
    assert len(await holding.receive(1)) == 1
    assert await idle.receive(1) == []
    await holding.aclose()
    await idle.aclose()
    consumers = await redis.ask("XINFO", "CONSUMERS", "s", "sluice")
    assert [consumer[1] for consumer in consumers] == [b"sluice:holding"]
    assert (await redis.group("s"))["pending"] == 1


async def test_replies_that_are_too_large_are_read_in_smaller_parts(
    redis: RedisServer, open_source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_stream, "MAX_REPLY_BYTES", 10_000)
    await redis.add("s", *(b"%d" % n + b"x" * 3000 for n in range(8)))
    source = open_source(redis, claim_idle_seconds=1)
    seen: set[bytes] = set()
    told: set[str] = set()
    async with asyncio.timeout(20):
        while len(seen) < 8:
            try:
                messages = await source.receive(8)
            except SourceError as error:
                told.add(str(error).partition(" ")[2])
            else:
                seen |= {message.body[:1] for message in messages}
                await source.acknowledge(messages)
    assert told == {"sent more than 10000 bytes"}
    assert seen == {b"%d" % n for n in range(8)}


@pytest.mark.parametrize(
    "answer",
    [
        b"*1\r\n" * 10_000,
        b"$999999999999\r\nx",
        b"hello\r\n",
        b":1\r\n" * 50,
        b"",
        b"-\r\n",
        b"*-1\r\n" * 9,
        b"$-1\r\n" * 9,
    ],
)
async def test_a_server_that_answers_anything_is_an_error_of_the_source(open_source: Open, answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", port := free_port()):
        source = open_source(f"redis://127.0.0.1:{port}")
        for failing in (source.receive(10), source.check(), source.measure()):
            try:
                await failing
            except SourceError:
                pass


@pytest.mark.parametrize("count", [b"-1", b"99999999999999999999"])
async def test_a_number_of_entries_that_cannot_be_is_an_error_of_the_source(open_source: Open, count: bytes) -> None:
    replies = {
        b"MULTI": b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:%b\r\n*-1\r\n" % count,
        b"GROUPS": b"*0\r\n",
        b"XLEN": b":%b\r\n" % count,
        b"CREATE": b"+OK\r\n",
        b"XPENDING": b"*0\r\n",
    }

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while asked := await reader.read(10_000):
            writer.write(next((reply for word, reply in replies.items() if word in asked), b"-ERR no such key\r\n"))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", port := free_port()):
        source = open_source(f"redis://127.0.0.1:{port}")
        for failing in (source.measure(), source.receive(10)):
            with pytest.raises(SourceError, match="not of Redis"):
                await failing
        assert source.take_lost() == 0
        await source.aclose()


async def test_the_failure_of_a_closed_port_is_told(open_source: Open) -> None:
    with pytest.raises(SourceError, match=r"could not connect to 127\.0\.0\.1:1: Connection refused"):
        await open_source("redis://127.0.0.1:1").receive(1)
    with pytest.raises(SourceError, match="not a public address") as error:
        await open_source("redis://10.0.0.1").receive(1)
    assert error.value.permanent


def test_a_failure_says_what_it_is() -> None:
    assert RedisFailure("x").outcome == "failed"
