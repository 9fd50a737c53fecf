"""Delivery to streams of Redis: what an entry has, how calls share a connection, and how they fail."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from msgspec.structs import replace

from app.delivery.kinds import Call
from app.delivery.redis_stream import target
from app.delivery.redis_stream.connection import RedisConnection
from app.delivery.redis_stream.target import RedisStreams
from app.delivery.webhook.egress import EgressPolicy
from app.domain.answers import Answer, NoAnswer
from app.domain.bridges import StreamAddress
from app.domain.options import Options
from tests.redis_server import RedisServer, free_port
from tests.support import poll

from .test_webhook import NOW, PLAIN

pytestmark = [pytest.mark.ci, pytest.mark.anyio]

StartRedis = Callable[..., Awaitable[RedisServer]]


@pytest.fixture
def anyio_backend() -> object:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
async def streams(loopback: EgressPolicy) -> AsyncIterator[RedisStreams]:
    streams = RedisStreams(loopback)
    yield streams
    await streams.aclose()


def call_to(redis: RedisServer | str, stream: str = "s", maxlen: int | None = None, **fields: Any) -> Call:
    url = redis if isinstance(redis, str) else redis.url
    address = StreamAddress(url=url, stream=stream, maxlen=maxlen)
    return replace(PLAIN, url="", kind="redis_stream", address=address, **fields)


def sending(streams: RedisStreams, call: Call) -> "asyncio.Future[Any]":
    ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    streams.send(call, NOW, ended.set_result)
    return ended


async def entries(redis: RedisServer, stream: str = "s") -> list[tuple[str, dict[str, bytes]]]:
    found = await redis.ask("XRANGE", stream, "-", "+")
    return [
        (entry.decode(), dict(zip((name.decode() for name in fields[::2]), fields[1::2], strict=True)))
        for entry, fields in found
    ]


async def test_a_task_is_one_entry_and_its_id_the_result(redis: RedisServer, streams: RedisStreams) -> None:
    options = Options(type="mail.sent", headers={"a": "b"}, correlation_id="c1", content_type="image/png", binary=True)
    answer = await sending(streams, call_to(redis, payload=b"\x00\xff", options=options, traceparent="00-aa-bb-01"))
    ((entry, fields),) = await entries(redis)
    assert isinstance(answer, Answer) and (answer.status, answer.body.decode()) == (200, entry)
    assert fields == {
        "body": b"\x00\xff",
        "sluice-task-id": PLAIN.task_id.encode(),
        "sluice-queue": b"mail",
        "sluice-attempt": b"2",
        "sluice-type": b"mail.sent",
        "sluice-headers": b'{"a":"b"}',
        "sluice-content-type": b"image/png",
        "x-correlation-id": b"c1",
        "traceparent": b"00-aa-bb-01",
    }


async def test_calls_that_wait_go_together_in_their_order(
    redis: RedisServer, streams: RedisStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, together = RedisConnection.run, list[int]()

    async def counting(self: RedisConnection, commands: Any, seconds: float) -> list[Any]:
        together.append(len(commands))
        return await run(self, commands, seconds)

    monkeypatch.setattr(RedisConnection, "run", counting)
    answers = await asyncio.gather(*(sending(streams, call_to(redis, payload=b"%d" % n)) for n in range(250)))
    assert all(answer.status == 200 for answer in answers)
    assert together == [100, 100, 50]
    monkeypatch.undo()
    assert [fields["body"] for _, fields in await entries(redis)] == [b"%d" % n for n in range(250)]


async def test_one_refused_entry_fails_alone(redis: RedisServer, streams: RedisStreams) -> None:
    await redis.ask("SET", "text", "1")
    good, bad = sending(streams, call_to(redis)), sending(streams, call_to(redis, "text"))
    assert (await good).status == 200
    answer = await bad
    assert isinstance(answer, NoAnswer) and answer.outcome == "failed" and "WRONGTYPE" in answer.error


async def test_a_stream_keeps_about_as_many_entries_as_it_is_told(redis: RedisServer, streams: RedisStreams) -> None:
    await asyncio.gather(*(sending(streams, call_to(redis, maxlen=100)) for _ in range(1000)))
    assert 100 <= await redis.ask("XLEN", "s") <= 300


async def test_a_wrong_password_is_told_without_it(start_redis: StartRedis, streams: RedisStreams) -> None:
    redis = await start_redis(requirepass="hunter22")
    call = call_to(f"redis://:hunter23@127.0.0.1:{redis.port}")
    answer = await sending(streams, call)
    assert isinstance(answer, NoAnswer) and answer.outcome == "failed"
    assert "password" in answer.error and "hunter23" not in answer.error + repr(call)
    assert "hunter" not in repr(streams.preview(call, NOW))
    assert (await sending(streams, call_to(f"redis://:hunter22@127.0.0.1:{redis.port}"))).status == 200


async def test_a_server_without_memory_is_a_failure(redis: RedisServer, streams: RedisStreams) -> None:
    await redis.ask("CONFIG", "SET", "maxmemory", "100000")
    answer = await sending(streams, call_to(redis))
    assert isinstance(answer, NoAnswer) and answer.outcome == "failed" and "memory" in answer.error
    await redis.ask("CONFIG", "SET", "maxmemory", "0")
    assert (await sending(streams, call_to(redis))).status == 200


async def test_a_server_that_is_killed_is_unreachable_and_found_again(
    redis: RedisServer, streams: RedisStreams
) -> None:
    assert (await sending(streams, call_to(redis))).status == 200
    await redis.kill()
    answers = await asyncio.gather(*(sending(streams, call_to(redis)) for _ in range(3)))
    assert {answer.outcome for answer in answers} == {"unreachable"}
    await redis.start()
    assert (await sending(streams, call_to(redis))).status == 200
    assert len(await entries(redis)) == 2


async def test_a_server_that_does_not_answer_holds_up_nobody_else(redis: RedisServer, streams: RedisStreams) -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(swallow, "127.0.0.1", port := free_port()):
        slow = [sending(streams, call_to(f"redis://127.0.0.1:{port}", timeout_seconds=0.3)) for _ in range(150)]
        assert (await sending(streams, call_to(redis))).status == 200
        for answer in await asyncio.gather(*slow):
            assert isinstance(answer, NoAnswer) and answer.outcome == "timeout"


@pytest.mark.parametrize(
    "reply", [b"+OK\r\n", b":1\r\n", b"*1\r\n" * 5000, b"?\r\n", b"", b"$5000000\r\n" + b"x" * 5_000_000]
)
async def test_a_server_that_answers_anything_is_a_failure(streams: RedisStreams, reply: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(reply)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", port := free_port()):
        answer = await sending(streams, call_to(f"redis://127.0.0.1:{port}", timeout_seconds=5))
    assert isinstance(answer, NoAnswer)


async def test_what_a_server_repeats_of_a_command_it_does_not_know_is_not_told(streams: RedisStreams) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"-ERR unknown command 'XADD', with args beginning with: 's' '*' 'body' '{\"card\": 4111}' \r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", port := free_port()):
        answer = await sending(streams, call_to(f"redis://127.0.0.1:{port}", timeout_seconds=5))
    assert isinstance(answer, NoAnswer) and "unknown command 'XADD'" in answer.error
    assert "4111" not in answer.error


async def test_addresses_that_are_not_allowed_are_not_called(streams: RedisStreams) -> None:
    answer = await sending(streams, call_to("redis://10.0.0.1"))
    assert isinstance(answer, NoAnswer) and answer.outcome == "egress_denied"


async def test_a_cancelled_call_tells_nobody_and_disturbs_nobody(redis: RedisServer, streams: RedisStreams) -> None:
    told: list[Any] = []
    cancelled = streams.send(call_to(redis, payload=b"1"), NOW, told.append)
    other = sending(streams, call_to(redis, payload=b"2"))
    cancelled.cancel()
    assert (await other).status == 200
    assert told == [] and [fields["body"] for _, fields in await entries(redis)] == [b"2"]


async def test_a_connection_that_nobody_uses_is_closed(
    redis: RedisServer, streams: RedisStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "IDLE_SECONDS", 0.05)

    async def clients() -> int:
        return (await redis.ask("CLIENT", "LIST")).count(b"\n")

    alone = await clients()
    assert (await sending(streams, call_to(redis))).status == 200

    async def gone() -> bool:
        return await clients() == alone

    await poll(gone)
    assert (await sending(streams, call_to(redis))).status == 200


async def test_calls_in_flight_end_when_a_replica_does(streams: RedisStreams) -> None:
    async with await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", port := free_port()):
        calls = [sending(streams, call_to(f"redis://127.0.0.1:{port}")) for _ in range(150)]
        await asyncio.sleep(0)
        await streams.aclose()
        assert {(await call).outcome for call in calls} == {"unreachable"}


async def test_tls_is_verified_against_the_name_in_the_url(
    start_redis: StartRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("redis.example")
    leaf.private_key_pem.write_to_path(str(tmp_path / "key"))
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "cert"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca"))
    port = free_port()
    files = {"tls_cert_file": str(tmp_path / "cert"), "tls_key_file": str(tmp_path / "key")}
    await start_redis(tls_port=str(port), tls_auth_clients="no", tls_ca_cert_file=str(tmp_path / "ca"), **files)

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    streams = RedisStreams(EgressPolicy(["127.0.0.0/8"], resolver=resolve))
    untrusted = await sending(streams, call_to(f"rediss://redis.example:{port}"))
    assert isinstance(untrusted, NoAnswer) and "certificate" in untrusted.error
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca"))
    assert (await sending(streams, call_to(f"rediss://redis.example:{port}"))).status == 200
    other = await sending(streams, call_to(f"rediss://other.example:{port}"))
    assert isinstance(other, NoAnswer) and "certificate" in other.error
    await streams.aclose()
