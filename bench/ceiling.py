"""The bare ceilings: what this machine gives to anyone who does only this, and no feature.

    python -m bench.ceiling enqueue DSN
    python -m bench.ceiling deliver DSN URL
    python -m bench.ceiling insert DSN
    python -m bench.ceiling relay DSN URL

`enqueue`: an ASGI route without a framework under uvicorn (uvloop, httptools) that inserts id and payload in groups;
what comes while a group is being written is the next group, and each request is answered after its commit.
`deliver`: on each line of stdin, empties the table: claim a group, POST each by pyreqwest, settle the group; two groups at once. A
line has two numbers: for how many seconds it inserts meanwhile, a group of 100 whenever fewer than 1,000 tasks wait, and how many
tasks it claims at once.
`insert`: on each line of stdin, a number of seconds, inserts groups of 1,000 over two connections: no HTTP at all.
`relay`: the route of `enqueue`; what it has committed is claimed, POSTed and settled at once, over a connection of its own.
"""

import asyncio
import socket
import sys
import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

import asyncpg
import uvicorn
import uvloop
from pyreqwest.client import ClientBuilder

from bench.processes import say

SCHEMA = """
create table if not exists bare (id uuid primary key, payload bytea not null, state smallint not null default 0)
  with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
create index if not exists bare_ready on bare (id) where state = 0;
"""
INSERT = "insert into bare (id, payload) select * from unnest($1::uuid[], $2::bytea[])"
CLAIM = """
update bare set state = 1
where id = any(array(select id from bare where state = 0 order by id limit $1 for update skip locked))
returning id, payload
"""
SETTLE = "update bare set state = 2 where id = any($1::uuid[])"

MAX_GROUP = 500
# The best of what was tried: one connection for enqueues (its groups are largest), two that claim and settle.
WORKERS = 2
CLAIM_GROUP = 100
MAX_WAITING = 1_000
BULK_GROUP = 1_000
PAYLOAD = b'{"to": "ada@example.com", "template": "welcome", "n": 1, "note": "%s"}' % (b"x" * 100)


class Enqueue:
    """The ASGI application and its one writing connection."""

    def __init__(self, connection: asyncpg.Connection, written: Callable[[], None] = lambda: None) -> None:
        self.connection = connection
        self.written = written
        """Called after each commit."""
        self.waiting: list[tuple[uuid.UUID, bytes, asyncio.Future[None]]] = []
        self.writer: asyncio.Task[None] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message.get("more_body"):
                break
        task, written = uuid.uuid4(), asyncio.get_running_loop().create_future()
        self.waiting.append((task, body, written))
        if self.writer is None:
            self.writer = asyncio.ensure_future(self.write())
        await written
        reply = b'{"id":"%s"}' % str(task).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(reply))]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": reply})

    async def write(self) -> None:
        while self.waiting:
            group, self.waiting = self.waiting[:MAX_GROUP], self.waiting[MAX_GROUP:]
            ids, bodies, futures = zip(*group, strict=True)
            await self.connection.execute(INSERT, ids, bodies)
            self.written()
            for future in futures:
                future.set_result(None)
            # Let the answered connections ask again before the next group is cut.
            await asyncio.sleep(0)
        self.writer = None


async def enqueue(dsn: str) -> None:
    await serve(Enqueue(await asyncpg.connect(dsn)))


async def serve(route: Enqueue) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    config = uvicorn.Config(
        route, loop="uvloop", http="httptools", lifespan="off", access_log=False, log_level="warning"
    )
    say(event="ready", url=f"http://127.0.0.1:{listener.getsockname()[1]}/queues/bench/tasks")
    await uvicorn.Server(config).serve(sockets=[listener])


async def told() -> asyncio.StreamReader:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    return lines


async def insert(dsn: str) -> None:
    lanes = [await asyncpg.connect(dsn) for _ in range(WORKERS)]
    lines = await told()
    say(event="ready")
    while line := await lines.readline():
        begun = time.perf_counter()
        counts = await asyncio.gather(*(fill(lane, BULK_GROUP, begun + float(line)) for lane in lanes))
        say(event="inserted", tasks=sum(counts), seconds=time.perf_counter() - begun)


async def fill(lane: asyncpg.Connection, group: int, until: float) -> int:
    done = 0
    while time.perf_counter() < until:
        await lane.execute(INSERT, [uuid.uuid4() for _ in range(group)], [PAYLOAD] * group)
        done += group
    return done


class Deliver:
    """Claims, delivers and settles over its lanes; may insert at the same time."""

    def __init__(self, lanes: list[asyncpg.Connection], client: Any, url: str) -> None:
        self.group = CLAIM_GROUP
        self.lanes = lanes
        self.client = client
        self.url = url
        self.waiting = 0
        self.moved = asyncio.Event()
        """Set when tasks came or went, in a run that inserts."""
        self.inserting = False

    async def run(self, insert_seconds: float, group: int, writer: asyncpg.Connection) -> int:
        """Return how many tasks were delivered and settled, until nothing is left."""
        self.group = group
        self.waiting, self.inserting = 0, insert_seconds > 0
        sides = [self.empty(lane) for lane in self.lanes]
        if self.inserting:
            sides.append(self.insert(writer, time.perf_counter() + insert_seconds))
        return sum(await asyncio.gather(*sides))

    async def insert(self, writer: asyncpg.Connection, until: float) -> int:
        while time.perf_counter() < until:
            if self.waiting >= MAX_WAITING:
                await self.change()
                continue
            await writer.execute(INSERT, [uuid.uuid4() for _ in range(CLAIM_GROUP)], [PAYLOAD] * CLAIM_GROUP)
            self.waiting += CLAIM_GROUP
            self.moved.set()
        self.inserting = False
        self.moved.set()
        return 0

    async def change(self) -> None:
        self.moved.clear()
        await self.moved.wait()

    async def empty(self, lane: asyncpg.Connection) -> int:
        """Claim, POST and settle until nothing is left, and nothing more comes."""
        done = 0
        while True:
            more = self.inserting
            rows = await lane.fetch(CLAIM, self.group)
            if not rows and more:
                await self.change()
                continue
            if not rows:
                return done
            await asyncio.gather(*(self.post(row["payload"]) for row in rows))
            await lane.execute(SETTLE, [row["id"] for row in rows])
            done += len(rows)
            self.waiting -= len(rows)
            self.moved.set()

    async def post(self, payload: bytes) -> None:
        building = self.client.post(self.url).body_bytes(payload).header("content-type", "application/json")
        answer = await building.build().send()
        await answer.bytes()
        assert answer.status == 200


def posting() -> ClientBuilder:
    return ClientBuilder().max_connections(256).http1_only().no_proxy()


async def relay(dsn: str, url: str) -> None:
    writer, lane = [await asyncpg.connect(dsn) for _ in range(2)]
    async with posting().build() as client:
        delivering = Deliver([lane], client, url)
        delivering.inserting = True
        emptying = asyncio.ensure_future(delivering.empty(lane))
        await serve(Enqueue(writer, delivering.moved.set))
        emptying.cancel()


async def deliver(dsn: str, url: str) -> None:
    writer, *lanes = [await asyncpg.connect(dsn) for _ in range(WORKERS + 1)]
    lines = await told()
    async with posting().build() as client:
        delivering = Deliver(lanes, client, url)
        say(event="ready")
        while line := await lines.readline():
            insert_seconds, group = line.split()
            begun = time.perf_counter()
            tasks = await delivering.run(float(insert_seconds), int(group), writer)
            say(event="emptied", tasks=tasks, seconds=time.perf_counter() - begun)


WAYS: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    "enqueue": enqueue,
    "deliver": deliver,
    "insert": insert,
    "relay": relay,
}

if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    uvloop.run(WAYS[what](*arguments))
