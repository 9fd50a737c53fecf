"""Flows: the tasks of one lane that limits admit or block together. The SQL is in sql/functions."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from app.store import locks
from app.store.db import Reader
from app.store.numbers import Lock
from app.store.statements import call, sql

_SWEEP = call("sweep_flows_v1", 2)
_FOLD = call("fold_flows_v1", 1)
_FORGET = sql("forget_flows")
_LIMITS_CHANGED = call("limits_changed_v1", 3)
_LANES = msgspec.json.Decoder(list[tuple[int, int]])

SWEPT_TENANTS = 100
SWEPT_FLOWS = 500
"""How many parked flows of a tenant are checked each time."""


class Sweep(NamedTuple):
    opened: Sequence[tuple[int, int]]
    """Lanes, as (queue id, handler id), with flows that may go on."""
    rescued: int
    """How many of them nobody would have found: always 0, or something is wrong."""


async def sweep(db: Reader) -> Sweep:
    """Fold the signals and timers of tenants for whom nobody claims, and check that no flow waits beside free room."""
    (row,) = await db.fetch(_SWEEP, SWEPT_TENANTS, SWEPT_FLOWS)
    return Sweep(_LANES.decode(row["opened"]), row["rescued"])


async def reopen(connection: Reader, tenant_id: int, limit_id: int | None = None, key: str | None = None) -> None:
    """Take the tenant's gate, and have its flows looked at again under the limits as they are now.

    Call it last, with the changes of limits in the same transaction: once that has committed, nothing is admitted under the old
    ones, because claims admit under the gate alone, and read limits after they have got it. With `limit_id`, nothing but numbers,
    pauses and overrides of that limit has changed, with `key`, those of that key; without, it may be which limits tasks take.
    """
    await connection.fetch(_LIMITS_CHANGED, tenant_id, limit_id, key)


async def forget(connection: Reader, tenant_id: int, queue_id: int) -> None:
    """Delete the flows of a queue that is locked and has no tasks. Signals of its last tasks, which make flows, go first."""
    await locks.take(connection, Lock.GATE, tenant_id)
    await connection.fetch(_FOLD, tenant_id)
    await connection.fetch(_FORGET, tenant_id, queue_id)
