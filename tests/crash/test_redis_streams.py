"""Entries of Redis streams become one task each, and tasks at least one entry, whatever dies in between.

Everything is counted at the end: in Redis, where nothing may be pending, and in the database, where there is one task per entry.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from app.delivery.redis_stream.addresses import RedisFailure
from app.sources import redis_stream
from tests.crash.conftest import payloads
from tests.redis_server import RedisServer
from tests.sluices import Replica, SluiceProcess
from tests.support import poll
from tests.wire.api import AT_ONCE, Api, fresh, good

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

FEW, MANY = 300, 10_000
SECONDS = 60.0
few_and_many = pytest.mark.parametrize(
    "messages", [FEW, pytest.param(MANY, marks=[pytest.mark.long, pytest.mark.timeout(1200)])]
)

StartRedis = Callable[..., Awaitable[RedisServer]]
StartSluice = Callable[..., Awaitable[SluiceProcess]]
StartReplica = Callable[..., Awaitable[Replica]]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica in this process drains as soon as its reads end."""
    monkeypatch.setattr(redis_stream, "BLOCK_SECONDS", 0.5)


@dataclass
class Bridge:
    """A stream, the source that reads it, and the queue that its tasks are in."""

    redis: RedisServer
    rows: "asyncpg.Connection[Any]"
    api: Api
    source: str
    queue: str
    stream: str

    async def tasks(self) -> Counter[bytes]:
        return await payloads(self.rows, self.queue)

    async def settled(self, seconds: float = SECONDS) -> None:
        """Wait until all entries have been read and acknowledged."""

        async def all_read() -> bool:
            return await self.redis.settled(self.stream)

        await poll(all_read, seconds, every_seconds=0.05)

    async def shown(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until the source is shown as wanted."""

        async def found() -> dict[str, Any] | None:
            source: dict[str, Any] = good(await self.api.get(f"/sources/{self.source}"))
            return source if wanted(source) else None

        source: dict[str, Any] = await poll(found, SECONDS, every_seconds=0.05)
        return source


@pytest.fixture
def make_bridge(redis: RedisServer, rows: "asyncpg.Connection[Any]") -> Callable[..., Awaitable[Bridge]]:
    """Makes a source that reads a stream of its own, with further fields."""

    async def make(api: Api, *, queue: dict[str, Any] | None = None, **fields: Any) -> Bridge:
        inside, source, stream = await api.queue(**(queue or {})), fresh("s"), fresh("stream")
        address = {
            "kind": "redis_stream",
            "url": redis.url,
            "stream": stream,
            "group": "sluice",
            "claim_idle_seconds": 1,
        }
        given = {"queue": inside, "max_outstanding": 10_000, **address, **fields}
        good(await api.put(f"/sources/{source}", json=given), 201)
        return Bridge(redis, rows, api, source, inside, given["stream"])

    return make


MakeBridge = Callable[..., Awaitable[Bridge]]


def bodies(count: int) -> list[str]:
    return [str(n) for n in range(count)]


def each_once(count: int) -> Counter[bytes]:
    return Counter(text.encode() for text in bodies(count))


async def fill(redis: RedisServer, stream: str, count: int) -> None:
    for start in range(0, count, 500):
        await redis.add(stream, *bodies(count)[start : start + 500])


async def test_a_replica_is_killed_between_the_commit_and_the_acknowledgement(
    redis: RedisServer, start_sluice: StartSluice, start_replica: StartReplica, make_bridge: MakeBridge
) -> None:
    doomed = await start_sluice()
    await redis.ask("ACL", "SETUSER", "default", "-xack")
    bridge = await make_bridge(Api(doomed.client, doomed.url))
    await fill(redis, bridge.stream, 50)

    async def enqueued() -> bool:
        return (await bridge.tasks()).total() == 50

    await poll(enqueued, SECONDS)
    await doomed.kill()
    assert (await redis.group(bridge.stream))["pending"] == 50
    await redis.ask("ACL", "SETUSER", "default", "+xack")
    replica = await start_replica()
    bridge.api = Api(replica.client, replica.url)
    await bridge.settled()
    assert await bridge.tasks() == each_once(50)
    assert (await bridge.shown(lambda source: source["duplicates"] >= 50))["duplicates"] == 50


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("messages", [FEW, MANY])
async def test_replicas_are_killed_again_and_again(
    redis: RedisServer, start_sluice: StartSluice, make_bridge: MakeBridge, messages: int
) -> None:
    kills = 2 + messages // 1000
    replicas = [await start_sluice() for _ in range(2)]
    bridge = await make_bridge(Api(replicas[0].client, replicas[0].url))
    for number in range(kills):
        added = [str(n) for n in range(messages) if n % kills == number]
        await redis.add(bridge.stream, *added[: len(added) // 2])
        before = (await bridge.tasks()).total()

        async def some_came(before: int = before) -> bool:
            return (await bridge.tasks()).total() > before

        await poll(some_came, SECONDS)
        await replicas[number % 2].kill()
        await redis.add(bridge.stream, *added[len(added) // 2 :])
        replicas[number % 2] = await start_sluice()
    await bridge.settled(SECONDS + messages / 20)
    assert await bridge.tasks() == each_once(messages)


@few_and_many
async def test_nothing_is_dropped_while_the_queue_is_full(
    redis: RedisServer, start_replica: StartReplica, make_bridge: MakeBridge, messages: int
) -> None:
    replicas = [await start_replica() for _ in range(2)]
    api = Api(replicas[0].client, replicas[0].url)
    bridge = await make_bridge(api, queue={"max_depth": 25})
    await fill(redis, bridge.stream, messages)
    await bridge.shown(lambda source: "full" in (source["last_error"] or ""))
    receives: Counter[int] = Counter()
    while receives.total() < messages:
        leased = good(await api.post(f"/queues/{bridge.queue}/leases", json={"max_tasks": 25, "wait_seconds": 20}))
        assert leased["tasks"], f"no task came for 20 s: {await bridge.tasks()}, {await redis.group(bridge.stream)}"
        for task in leased["tasks"]:
            receives[task["payload"]] += 1
            headers = {"sluice-lease-token": task["lease_token"]}
            good(await api.post(f"/tasks/{task['id']}/complete", json={}, headers=headers))
    assert receives == Counter(range(messages))
    await bridge.settled()
    assert await bridge.tasks() == each_once(messages)


async def test_redis_is_killed_while_entries_come_in(
    redis: RedisServer, start_replica: StartReplica, make_bridge: MakeBridge
) -> None:
    replica = await start_replica()
    bridge = await make_bridge(Api(replica.client, replica.url))
    sent = 0
    for _ in range(3):
        await redis.add(bridge.stream, *(str(n) for n in range(sent, sent + 100)))
        sent += 100
        await redis.kill()
        await redis.start()
    await bridge.settled()
    assert await bridge.tasks() == each_once(sent)
    source = await bridge.shown(lambda source: source["failing_since"] is None and source["enqueued"] == sent)
    assert source["lost"] == 0


async def test_entries_after_a_flush_are_tasks_like_those_before(
    redis: RedisServer, start_replica: StartReplica, make_bridge: MakeBridge
) -> None:
    replica = await start_replica()
    bridge = await make_bridge(Api(replica.client, replica.url), start="$")
    await bridge.shown(lambda source: source["lag"] == 0)
    for number in range(3):
        await redis.add(bridge.stream, str(number))
        await bridge.settled()
        await redis.ask("FLUSHALL")
    await redis.add(bridge.stream, "3")
    await bridge.settled()
    assert await bridge.tasks() == each_once(4)


async def test_entries_are_enqueued_or_counted_as_lost_while_the_stream_is_trimmed(
    redis: RedisServer, start_sluice: StartSluice, start_replica: StartReplica, make_bridge: MakeBridge
) -> None:
    """Before they are read, and while they are pending for a replica that has been killed."""
    doomed = await start_sluice()
    api = Api(doomed.client, doomed.url)
    bridge = await make_bridge(api, queue={"max_depth": 30})
    await fill(redis, bridge.stream, 300)
    await bridge.shown(lambda source: "full" in (source["last_error"] or ""))
    await doomed.kill()
    await redis.ask("XTRIM", bridge.stream, "MAXLEN", 50)
    replica = await start_replica()
    bridge.api = Api(replica.client, replica.url)
    good(await bridge.api.put(f"/queues/{bridge.queue}", json={"max_depth": 1000}))
    await bridge.settled()
    tasks = await bridge.tasks()
    source = await bridge.shown(lambda source: source["enqueued"] + source["lost"] >= 300)
    assert max(tasks.values()) == 1 and source["lost"] == 300 - tasks.total()
    assert source["invalid"] == 0


async def test_a_password_that_changes_is_told_and_the_new_one_goes_on(
    redis: RedisServer, start_replica: StartReplica, make_bridge: MakeBridge
) -> None:
    replica = await start_replica()
    api = Api(replica.client, replica.url)
    await redis.ask("ACL", "SETUSER", "ada", "on", ">first-hush", "~*", "+@all")
    bridge = await make_bridge(api, url=f"redis://ada:first-hush@127.0.0.1:{redis.port}")
    await redis.add(bridge.stream, "0")
    await bridge.settled()
    await redis.ask("ACL", "SETUSER", "ada", "resetpass", ">second-hush")
    await redis.ask("CLIENT", "KILL", "USER", "ada")
    await redis.add(bridge.stream, "1")
    told = await bridge.shown(lambda source: "password" in (source["last_error"] or ""))
    assert "hush" not in str(told)
    url = f"redis://ada:second-hush@127.0.0.1:{redis.port}"
    given = {"queue": bridge.queue, "kind": "redis_stream", "url": url, "stream": bridge.stream, "group": "sluice"}
    good(await api.put(f"/sources/{bridge.source}", json=given))
    await bridge.settled()
    assert await bridge.tasks() == each_once(2)
    assert "hush" not in (await api.get(f"/sources/{bridge.source}")).text


async def test_tasks_leave_to_a_stream_while_redis_is_killed_and_come_back_in(
    redis: RedisServer, start_replica: StartReplica, make_bridge: MakeBridge
) -> None:
    """At least one entry per task that succeeded, and the way back in makes each entry a task."""
    replica = await start_replica()
    api = Api(replica.client, replica.url)
    bridge = await make_bridge(api)
    handler = fresh("h")
    given = {"kind": "redis_stream", "url": redis.url, "stream": bridge.stream, "timeout_seconds": 5}
    good(await api.put(f"/handlers/{handler}", json=given), 201)
    leaving = await api.queue(handler, retry={"max_attempts": 50, **AT_ONCE})
    ids = await api.bulk(leaving, [{"payload": n} for n in range(200)])
    await redis.kill()
    ids += await api.bulk(leaving, [{"payload": n} for n in range(200, 300)])

    async def some_failed() -> bool:
        failed = (
            "select exists (select from sluice.tasks t join sluice.queues q on q.id = t.queue_id"
            " where q.name = $1 and t.last_error is not null)"
        )
        return bool(await bridge.rows.fetchval(failed, leaving))

    await poll(some_failed, SECONDS, every_seconds=0.05)
    await redis.start()

    async def all_left() -> bool:
        counted = await bridge.rows.fetchval(
            "select count(*) from sluice.task_history t join sluice.queues q on q.id = t.queue_id where q.name = $1",
            leaving,
        )
        return bool(counted == 300)

    await poll(all_left, SECONDS, every_seconds=0.05)
    task = good(await api.get(f"/tasks/{ids[0]}"))
    assert task["state"] == "succeeded" and await redis.ask("XRANGE", bridge.stream, task["result"], task["result"])
    await bridge.settled()
    assert set(await bridge.tasks()) == set(each_once(300))
    assert (await bridge.tasks()).total() == await redis.ask("XLEN", bridge.stream)


async def test_a_handler_is_tested_and_a_source_too(
    redis: RedisServer, start_replica: StartReplica, make_bridge: MakeBridge
) -> None:
    replica = await start_replica()
    api = Api(replica.client, replica.url)
    bridge = await make_bridge(api)
    tested = good(await api.post(f"/sources/{bridge.source}/test"))
    assert tested["error"] is None
    handler = fresh("h")
    given = {"kind": "redis_stream", "url": f"redis://:hush@127.0.0.1:{redis.port}", "stream": "tested"}
    good(await api.put(f"/handlers/{handler}", json=given), 201)
    refused = (await api.post(f"/handlers/{handler}/test", json={})).text
    assert "hush" not in refused and "AUTH" in refused
    good(await api.put(f"/handlers/{handler}", json={**given, "url": redis.url}))
    assert good(await api.post(f"/handlers/{handler}/test", json={}))["received"]["status"] == 200
    assert await redis.ask("XLEN", "tested") == 1
    with pytest.raises(RedisFailure):
        await redis.ask("XLEN", "tested", "extra")
