"""Verbs on queues as SQS has them. What they have in common with other queues is in service/queues.py.

A queue is read and changed whoever made it: what SQS shows of one made elsewhere follows from its definition (domain/sqs.py).
"""

from collections.abc import Callable
from dataclasses import dataclass

from app.domain.actions import TAKES
from app.domain.callers import Caller
from app.domain.conditions import Conditions
from app.domain.errors import Refusal, queue_not_found
from app.domain.names import is_name
from app.domain.queues import QueueDefinition
from app.domain.sqs import ELSEWHERE, QueueAttributes, is_fifo
from app.runtime import acting
from app.runtime.catalogue import TRIES, KeepsChanging
from app.runtime.core import Core
from app.service import queues
from app.service.audit import audited, record
from app.service.queues import SqsChange, recorded
from app.store import actions, clock
from app.store import queues as in_store
from app.store import sqs as store
from app.store.actions import NewAction, Search
from app.store.db import Reader
from app.store.failures import Unavailable
from app.store.queues import StoredQueue

PURGE_SECONDS = 60.0
"""How often SQS lets a queue be purged."""
WORK_SECONDS = 5.0
"""How long a request works on emptying a queue before it is answered; the engines go on."""


@dataclass(frozen=True, slots=True)
class SqsQueue:
    """A queue as SQS has it."""

    row: StoredQueue

    @property
    def definition(self) -> QueueDefinition:
        return self.row.view.definition

    @property
    def attributes(self) -> QueueAttributes:
        return self.row.sqs or ELSEWHERE

    @property
    def fifo(self) -> bool:
        return is_fifo(self.row.view.name, self.definition.key)


Changed = Callable[[SqsQueue], tuple[QueueDefinition, QueueAttributes]]


async def find(core: Core, caller: Caller, name: str) -> SqsQueue:
    """Return a queue. Raises Refusal (queue_not_found)."""
    caller.require("read")
    if not is_name(name):
        raise queue_not_found(name)
    async with core.db.begin(caller.tenant_id) as connection:
        return SqsQueue(await queues.found(connection, caller, name))


async def count(core: Core, caller: Caller, queue: SqsQueue) -> dict[str, int]:
    """Return how many messages are `ready`, `scheduled` (delayed) and `running` (in flight). Raises Unavailable."""
    return await store.count_messages(core.db.reads(caller.tenant_id), queue.row.id)


async def list_names(core: Core, caller: Caller, prefix: str, after: str | None, limit: int) -> tuple[list[str], bool]:
    """Return names of queues that begin with `prefix`, after the name `after`, and whether there are more."""
    caller.require("read")
    async with core.db.begin(caller.tenant_id) as connection:
        found = await store.list_names(connection, caller.tenant_id, prefix, after, limit + 1, caller.queues)
    return found[:limit], len(found) > limit


async def list_sources(core: Core, caller: Caller, name: str, after: str | None, limit: int) -> tuple[list[str], bool]:
    """Return the queues that have this one as their dead-letter queue, as list_names does. Raises Refusal (queue_not_found)."""
    await find(core, caller, name)
    async with core.db.begin(caller.tenant_id) as connection:
        found = await store.list_sources(connection, caller.tenant_id, name, after, limit + 1, caller.queues)
    return found[:limit], len(found) > limit


@audited("put", "queue")
async def create(
    core: Core, caller: Caller, name: str, definition: QueueDefinition, attributes: QueueAttributes
) -> SqsQueue | None:
    """Create a queue and return None; if there is one of this name, leave it as it is and return it.

    Raises Refusal: as queues.put.
    """
    caller.require("manage")
    for _ in range(TRIES):
        try:
            return await find(core, caller, name)
        except Refusal as refusal:
            if refusal.code != "queue_not_found":
                raise
        try:
            only_new = Conditions(if_none_match_any=True)
            await queues.save(core, caller, name, definition, only_new, sqs=SqsChange(None, attributes))
        except Refusal as refusal:
            if refusal.code != "etag_mismatch":
                raise
        else:
            return None
    raise KeepsChanging(f"queue {name}")


@audited("put", "queue")
async def change(core: Core, caller: Caller, name: str, changed: Changed) -> None:
    """Change a queue into what `changed` makes of it. Raises Refusal: queue_not_found, as queues.put; what `changed` raises."""
    caller.require("manage")
    if not is_name(name):
        raise queue_not_found(name)
    for _ in range(TRIES):
        async with core.db.begin(caller.tenant_id) as connection:
            row = await queues.locked(connection, caller, name)
            definition, attributes = changed(SqsQueue(row))
            if definition == row.view.definition:
                if attributes != row.sqs:
                    await store.set_attributes(connection, row, attributes)
                    after = await queues.found(connection, caller, name)
                    await record(connection, caller, recorded(row), recorded(after))
                break
        # queues of other names are locked first: in a transaction of its own, if nothing has changed meanwhile
        try:
            unchanged = Conditions(if_match=(row.etag,))
            await queues.save(core, caller, name, definition, unchanged, sqs=SqsChange(row.sqs, attributes))
            break
        except Refusal as refusal:
            if refusal.code != "etag_mismatch":
                raise
    else:
        raise KeepsChanging(f"queue {name}")
    core.queues.forget(caller.tenant_id, name)


@audited("delete", "queue")
async def delete(core: Core, caller: Caller, name: str) -> None:
    """Delete a queue, and cancel what is in it (`purged`), which goes on by itself.

    Callbacks of other queues that name it are left out from now on. Raises Refusal: queue_not_found; queue_in_use (a schedule, a
    batch, a source or a transaction enqueues there).
    """
    caller.require("manage")
    if not is_name(name):
        raise queue_not_found(name)
    async with core.db.begin(caller.tenant_id) as connection:
        row = await queues.locked(connection, caller, name)
        if await in_store.is_used(connection, row.id, tasks=False):
            raise Refusal(
                "queue_in_use",
                f"a schedule, batch, source or transaction enqueues to queue {name}; end or delete it first",
            )
        action = await _emptying(core, caller, row, connection)
        await in_store.mark_deleted(connection, caller.tenant_id, row.id)
        await actions.add(connection, action)
        await record(connection, caller, recorded(row), None)
    core.queues.forget(caller.tenant_id, name)
    await work(core, caller, action)


@audited("purge", "queue")
async def empty(core: Core, caller: Caller, name: str) -> bool:
    """Cancel every unfinished task of a queue, also those that are running (`purged`). It goes on by itself if there are many.

    Return False, and do nothing, within PURGE_SECONDS after the last time. Raises Refusal (queue_not_found).
    """
    caller.require("manage")
    if not is_name(name):
        raise queue_not_found(name)
    async with core.db.begin(caller.tenant_id) as connection:
        row = await queues.locked(connection, caller, name)
        if await actions.was_emptied(connection, caller.tenant_id, name, row.id, PURGE_SECONDS):
            return False
        action = await _emptying(core, caller, row, connection)
        await actions.add(connection, action)
        await record(connection, caller, None, {"action": action.id})
    await work(core, caller, action)
    return True


async def _emptying(core: Core, caller: Caller, row: StoredQueue, db: Reader) -> NewAction:
    return NewAction(
        id=core.ids.uuid7(int(core.clock.seconds() * 1000)),
        tenant_id=caller.tenant_id,
        kind="empty",
        filter={"queue": row.view.name},
        search=Search(queue_ids=[row.id], within=TAKES["empty"][1]),
        at=await clock.now(db),
        created_by=caller.key_id,
    )


async def work(core: Core, caller: Caller, action: NewAction) -> None:
    """Work on a stored action for a while, so that a short one is done when its request is answered."""
    try:
        await acting.work(core, core.db.changes(caller.tenant_id), action.id, WORK_SECONDS)
    except Unavailable:
        pass  # it is stored, and goes on
    finally:
        core.signals.action_started()
