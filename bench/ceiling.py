"""The bare ceilings: what this machine gives to anyone who does only this, and no feature.

    python -m bench.ceiling enqueue DSN
    python -m bench.ceiling deliver DSN URL

`enqueue`: an ASGI route without a framework under uvicorn (uvloop, httptools) that inserts id and payload in groups;
what comes while a group is being written is the next group, and each request is answered after its commit.
`deliver`: on each line of stdin, empties the table: claim a group, POST each by pyreqwest, settle the group.
"""

import asyncio
import socket
import sys
import time
import uuid
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


class Enqueue:
    """The ASGI application and its one writing connection."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
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
            for future in futures:
                future.set_result(None)
            # Let the answered connections ask again before the next group is cut.
            await asyncio.sleep(0)
        self.writer = None


async def enqueue(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    config = uvicorn.Config(
        Enqueue(connection), loop="uvloop", http="httptools", lifespan="off", access_log=False, log_level="warning"
    )
    say(event="ready", url=f"http://127.0.0.1:{listener.getsockname()[1]}/queues/bench/tasks")
    await uvicorn.Server(config).serve(sockets=[listener])


async def deliver(dsn: str, url: str) -> None:
    lanes = [await asyncpg.connect(dsn) for _ in range(WORKERS)]
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with ClientBuilder().max_connections(256).http1_only().no_proxy().build() as client:
        say(event="ready")
        while await lines.readline():
            begun = time.perf_counter()
            counts = await asyncio.gather(*(empty(lane, client, url) for lane in lanes))
            say(event="emptied", tasks=sum(counts), seconds=time.perf_counter() - begun)


async def empty(lane: asyncpg.Connection, client: Any, url: str) -> int:
    """Claim, POST and settle until nothing is left."""

    async def post(payload: bytes) -> None:
        answer = await client.post(url).body_bytes(payload).header("content-type", "application/json").build().send()
        await answer.bytes()
        assert answer.status == 200

    done = 0
    while rows := await lane.fetch(CLAIM, CLAIM_GROUP):
        await asyncio.gather(*(post(row["payload"]) for row in rows))
        await lane.execute(SETTLE, [row["id"] for row in rows])
        done += len(rows)
    return done


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    uvloop.run(enqueue(*arguments) if what == "enqueue" else deliver(*arguments))
