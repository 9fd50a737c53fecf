"""Moves: actions that send what waits in a dead-letter queue to other queues, as SQS clients ask for it."""

from app.domain.actions import TAKES, ActionView
from app.domain.callers import Caller
from app.domain.errors import Refusal
from app.domain.ids import parse_uuid
from app.runtime.core import Core
from app.service import actions as service
from app.service import queues, sqs
from app.service.audit import audited, record
from app.store import actions, clock
from app.store import sqs as in_store
from app.store.actions import NewAction, Search


class NotDeadLetters(Exception):
    """Raised if no queue has the source as its dead-letter queue."""


class AlreadyMoving(Exception):
    """Raised if a move from the same queue is under way."""


class NotThere(Exception):
    """Raised if there is no such move under way."""


@audited("start", "action", parts=0)
async def start(core: Core, caller: Caller, source: str, target: str | None, rate_per_second: float | None) -> str:
    """Start to move what waits in the queue `source` to `target`, or each message back to where it came from; return the id.

    Raises Refusal: queue_not_found (of either), forbidden (a key that is confined to queues must name the target), invalid (the
    target is of another kind, or encrypts what the source does not); NotDeadLetters, AlreadyMoving.
    """
    caller.require("manage")
    if target is None and caller.queues is not None:
        raise Refusal("forbidden", "a key that is confined to queues must name the queue that messages are moved to")
    to = None if target is None else await sqs.find(core, caller, target)
    of = await sqs.find(core, caller, source)
    if to is not None and to.fifo != of.fifo:
        raise Refusal("invalid", f"one of {source} and {target} is a FIFO queue, and the other is not")
    async with core.db.begin(caller.tenant_id) as connection:
        row = await queues.locked(connection, caller, source)
        if not await in_store.list_sources(connection, caller.tenant_id, source, None, 1, None):
            raise NotDeadLetters
        if to is not None and to.row.view.definition.encrypt and not row.view.definition.encrypt:
            raise Refusal("invalid", f"queue {target} encrypts what it stores, but {source} does not")
        latest = await actions.moves_from(connection, caller.tenant_id, source, row.id, 1)
        if latest and latest[0].state == "running":
            raise AlreadyMoving
        action = NewAction(
            id=core.ids.uuid7(int(core.clock.seconds() * 1000)),
            tenant_id=caller.tenant_id,
            kind="move",
            filter={"queue": source} | ({} if target is None else {"to": target}),
            search=Search(queue_ids=[row.id], within=TAKES["move"][1], to=None if to is None else to.row.id),
            at=await clock.now(connection),
            rate_per_second=rate_per_second,
            created_by=caller.key_id,
        )
        await actions.add(connection, action)
        told = {"kind": "move", "filter": action.filter, "rate_per_second": rate_per_second}
        await record(connection, caller, None, told, name=action.id)
    await sqs.work(core, caller, action)
    return action.id


async def list_latest(core: Core, caller: Caller, source: str, limit: int) -> list[ActionView]:
    """Return the latest moves from a queue, newest first. Raises Refusal (queue_not_found)."""
    row = (await sqs.find(core, caller, source)).row
    reads = core.db.reads(caller.tenant_id)
    found = await actions.moves_from(reads, caller.tenant_id, source, row.id, limit)
    return [view for view in found if service.sees(caller, view)]


async def cancel(core: Core, caller: Caller, action_id: str) -> ActionView:
    """End a move as it is; what it has moved stays moved. Raises Refusal: forbidden; NotThere."""
    caller.require("manage")
    if parse_uuid(action_id) is None:
        raise NotThere
    try:
        view = await service.get(core, caller, action_id)
    except Refusal as refusal:
        if refusal.code != "action_not_found":
            raise
        raise NotThere from None
    if view.kind != "move" or view.state != "running":
        raise NotThere
    return await service.cancel(core, caller, action_id)
