"""The services by themselves: a core on a clean database, without an engine or an edge."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from uuid import uuid4

import pytest

from app.delivery.deliveries import Deliveries
from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.transport import Transport
from app.domain.callers import Caller
from app.runtime.core import Core, build_core
from app.runtime.replica import Replica
from app.store import enqueues, queues, tasks, tenants
from app.store.db import Database, Reader
from app.store.enqueues import Entry
from app.store.tasks import Claim, LaneWant
from app.store.vault import open_vault
from app.telemetry.tracing import build_tracing


@asynccontextmanager
async def core_on(url: str) -> AsyncIterator[Core]:
    egress = EgressPolicy(["127.0.0.0/8"])
    async with AsyncExitStack() as stack:
        db = Database(url)
        await db.open()
        stack.push_async_callback(db.close)
        delivery = Deliveries(egress, Transport(egress))
        stack.push_async_callback(delivery.aclose)
        yield build_core(
            db,
            vault=await open_vault(db, ()),
            delivery=delivery,
            tracing=build_tracing(None, version="0", replica="test"),
            replica=Replica(str(uuid4()), "test"),
            public_url="http://sluice.test",
            max_payload_bytes=1_048_576,
        )


@pytest.fixture
async def start_core(database_url: str) -> AsyncIterator[Callable[[], Awaitable[Core]]]:
    """Makes cores on the test's database: one a replica."""
    async with AsyncExitStack() as stack:
        yield lambda: stack.enter_async_context(core_on(database_url))


@pytest.fixture
async def core(start_core: Callable[[], Awaitable[Core]]) -> Core:
    return await start_core()


@pytest.fixture
async def caller(core: Core) -> Caller:
    return Caller(await tenants.id_of(core.db, "default"), "default", "operate")


async def enqueue(core: Core, caller: Caller, queue: str, count: int = 1, *, handler_id: int = 0) -> list[str]:
    """Tasks straight into a queue; their ids."""
    row = await queues.find(core.db, caller.tenant_id, queue)
    assert row is not None
    ids = [core.ids.uuid7(int(core.clock.seconds() * 1000)) for _ in range(count)]
    entries = [Entry(task_id, row.id, row.version, handler_id, b"null", None, None, None) for task_id in ids]
    receipt = await enqueues.enqueue(core.db, str(uuid4()), entries)
    assert receipt.verdicts == {}
    return ids


async def claim(core: Core, queue_id: int, want: int, lane: int = 0) -> Claim:
    """Claim of one lane, as a replica does."""
    (found,) = await claim_lanes(core, [LaneWant(queue_id, lane, want)])
    return found


async def claim_lanes(core: Core, lanes: Sequence[LaneWant], db: Reader | None = None) -> list[Claim]:
    return await tasks.claim(
        db or core.db,
        lanes,
        owner=core.replica.id,
        replica=core.replica.name,
        claim_id=str(uuid4()),
        not_after=core.clock.now() + timedelta(seconds=30),
        lease_seconds=30,
    )
