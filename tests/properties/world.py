"""Two replicas on one database, a handler that answers as each payload says, and time that passes when it is told to.

State machines are synchronous: everything here lives on an event loop in a thread of its own, and is called from outside.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any, TypeVar

import asyncpg
import uvloop

from app.engine.janitor import Janitor
from app.settings import Settings
from tests.handlers import Handler, Received, Reply
from tests.sluices import replica_with
from tests.support import poll
from tests.wire.api import Api

T = TypeVar("T")

HOUR = 3600
CALL_SECONDS = 60
ANSWERS = {
    "ok": Reply(200),
    "error": Reply(500),
    "gone": Reply(410),
    "never again": Reply(503, {"sluice-retry": "no"}),
    "fatal": Reply(422),
    "hold": Reply(202, {"sluice-hold": str(HOUR)}),
}
FATAL = 422


class World:
    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="world", daemon=True)
        self.apis: list[Api] = []
        self.gate = asyncio.Event()

    @contextmanager
    def running(self) -> "Iterator[World]":
        self._thread.start()
        try:
            self.do(self._start())
            yield self
        finally:
            self.do(self._stack.aclose())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)

    async def _start(self) -> None:
        self._stack = AsyncExitStack()
        self.handler = await self._stack.enter_async_context(Handler().serving())
        self._calls: Counter[str] = Counter()
        self.tokens: dict[tuple[str, int], str] = {}
        """The lease token by task and call, counting from 1."""
        self.handler.script(self._answer)
        settings = {"database_url": self._database_url, "port": 0, "drain_grace_seconds": 0, "log_level": "error"}
        replicas = [
            await self._stack.enter_async_context(replica_with(Settings.model_validate(settings))) for _ in range(2)
        ]
        self.apis = [Api(replica.client, replica.url) for replica in replicas]
        self._janitors = [Janitor(replica.sluice.core) for replica in replicas]
        self._database = await asyncpg.connect(self._database_url)
        self._stack.push_async_callback(self._database.close)

    def _answer(self, request: Received) -> Reply:
        self._calls[request.task] += 1
        call = self._calls[request.task]
        self.tokens[request.task, call] = request.headers["sluice-lease-token"]
        answers = request.json["answers"]
        answer = answers[min(call, len(answers)) - 1]
        return Reply(200, until=self.gate) if answer == "gate" else ANSWERS[answer]

    async def open_gate(self) -> None:
        self.gate.set()

    # Time passes for one task: its instant is moved back, and the sweep that every replica does each second is done now.

    async def let_be_due(self, task_id: str) -> None:
        await self._move("run_at", task_id)
        await self._janitors[0].promote()
        await self._wait(f"select state = 0 from sluice.tasks where id = '{task_id}'")

    async def let_lease_run_out(self, task_id: str) -> None:
        await self._move("lease_expires_at", task_id)

    async def let_lease_be_reaped(self, task_id: str) -> None:
        await self._janitors[1].reap()
        await self._wait(f"select not exists (select from sluice.tasks where id = '{task_id}' and state = 1)")

    async def let_expire(self, task_id: str) -> None:
        await self._move("expires_at", task_id)
        await self.sweep_expired(task_id)

    async def sweep_expired(self, task_id: str) -> None:
        await self._janitors[0].expire()
        await self._wait(
            f"select not exists (select from sluice.tasks where id = '{task_id}' and state <> 1"
            " and expires_at <= clock_timestamp())"
        )

    async def let_key_expire(self, queue: str, key: str) -> None:
        await self._database.execute(
            "update sluice.idempotency_keys set expires_at = clock_timestamp()"
            " where key = $2 and queue_id in (select id from sluice.queues where name = $1)",
            queue,
            key,
        )

    async def _move(self, column: str, task_id: str) -> None:
        moved = await self._database.execute(
            f"update sluice.tasks set {column} = clock_timestamp() where id = $1 and {column} is not null", task_id
        )
        assert moved == "UPDATE 1", "nothing lay ahead"

    async def _wait(self, question: str) -> None:
        await poll(lambda: self._database.fetchval(question))
