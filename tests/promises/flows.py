"""Flow control by itself: limits as rows, keyed tasks, and claims as replicas make them."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import uuid4

from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.handlers import HandlerDefinition
from app.domain.limits import LimitUse
from app.domain.options import Options, encode_options
from app.domain.queues import QueueDefinition
from app.runtime.core import Core
from app.service import handlers, queues
from app.store import enqueues, flows
from app.store import queues as store
from app.store.enqueues import Entry
from app.store.tasks import AttemptEnd, Claim, Claimed, settle
from tests.cores import claim

HOOK = "https://example.com/hook"


@dataclass
class Flows:
    """Of one tenant, as several replicas see it."""

    cores: Sequence[Core]
    caller: Caller

    @property
    def core(self) -> Core:
        return self.cores[0]

    async def queue(self, name: str, handler: str = "hook") -> int:
        await handlers.put(self.core, self.caller, handler, HandlerDefinition(HOOK), None, ANY)
        await queues.put(self.core, self.caller, name, QueueDefinition(handler=handler), ANY)
        row = await store.find(self.core.db, self.caller.tenant_id, name)
        assert row is not None
        return row.id

    async def limit(
        self, kind: str = "named", name: str | None = None, owner: int | None = None, **columns: object
    ) -> int:
        """Create or change a limit, as a service does."""
        given = {"tenant_id": self.caller.tenant_id, "kind": kind, "name": name, "owner_id": owner, **columns}
        target = "(tenant_id, name) where name is not null" if name else "(owner_id, kind) where owner_id is not null"
        async with self.core.db.begin(self.caller.tenant_id) as connection:
            limit_id = await connection.fetchval(
                f"insert into sluice.limits ({', '.join(given)}) values ({', '.join(f'${n}' for n in range(1, len(given) + 1))})"
                f" on conflict {target} do update set {', '.join(f'{one} = excluded.{one}' for one in given)} returning id",
                *given.values(),
            )
            await flows.reopen(connection, self.caller.tenant_id)
        return int(limit_id)

    async def change(self, statement: str, limit_id: int | None = None) -> None:
        async with self.core.db.begin(self.caller.tenant_id) as connection:
            await connection.execute(statement)
            await flows.reopen(connection, self.caller.tenant_id, limit_id)

    async def enqueue(
        self,
        queue_id: int,
        keys: Iterable[str | None],
        *,
        limits: tuple[LimitUse, ...] = (),
        priority: int = 0,
        delay_seconds: float | None = None,
        max_attempts: int | None = None,
    ) -> list[str]:
        """One task per key, in this order."""
        row = (await self.core.db.fetch("select version from sluice.queues where id = $1", queue_id))[0]
        entries = [
            Entry(
                self.core.ids.uuid7(int(self.core.clock.seconds() * 1000)), queue_id, row[0], 0, b"null", None, None,
                priority=priority, delay_seconds=delay_seconds, max_attempts=max_attempts,
                options=encode_options(Options(key=key, limits=limits)),
            )
            for key in keys
        ]  # fmt: skip
        receipt = await enqueues.enqueue(self.core.db, str(uuid4()), entries)
        assert receipt.verdicts == {}
        return [entry.task_id for entry in entries]

    async def claim(self, queue_id: int, want: int = 10, core: int = 0) -> Claim:
        """Claim until no other claim is in the way."""
        while (found := await claim(self.cores[core], queue_id, want)).verdict == "busy":
            await asyncio.sleep(0.001)
        return found

    async def settle(self, tasks: Iterable[Claimed], kind: str = "succeeded", delay_seconds: float = 0.0) -> None:
        if done := [
            AttemptEnd(task.task_id, task.token, kind, "failed", delay_seconds=delay_seconds) for task in tasks
        ]:
            assert set((await settle(self.core.db, done)).values()) == {"applied"}

    async def let_pass(self, seconds: float) -> None:
        """As if so much time had passed for all rates."""
        await self.core.db.fetch(
            "update sluice.rate_clocks set tat = tat - make_interval(secs => $1), open_at = open_at - make_interval(secs => $1)",
            seconds,
        )

    async def parked(self) -> int:
        count: int = await self.core.db.fetchval("select count(*) from sluice.flows where parked_on is not null")
        return count


def keys_of(claimed: Claim) -> list[str | None]:
    return [task.options.key for task in claimed.tasks]


def uses(*names: str, cost: int = 1) -> tuple[LimitUse, ...]:
    return tuple(LimitUse(name, None, cost) for name in names)
