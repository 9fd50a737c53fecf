"""Chunked deletion of what has served its time."""

from app.store.db import Database
from app.store.statements import sql

CHUNK = 2000
RECEIPT_HOURS = 1

_KEYS = sql("prune_idempotency_keys")
_RECEIPTS = sql("prune_receipts")
_FOLLOWUP_KEYS = sql("prune_followup_keys")
_BATCHES = sql("prune_batches")
_RUNS = sql("prune_runs")


async def idempotency_keys(db: Database) -> int:
    """Forget keys past their time; how many."""
    return await _all(db, _KEYS, CHUNK)


async def receipts(db: Database) -> int:
    return await _all(db, _RECEIPTS, CHUNK, RECEIPT_HOURS)


async def followup_keys(db: Database) -> int:
    """Forget the keys of batches that completed long enough ago."""
    return await _all(db, _FOLLOWUP_KEYS, CHUNK)


async def batches(db: Database) -> int:
    return await _all(db, _BATCHES, CHUNK)


async def schedule_runs(db: Database) -> int:
    """Forget what the ledger has kept long enough; a run that has not ended stays."""
    return await _all(db, _RUNS, CHUNK)


async def _all(db: Database, statement: str, *arguments: int) -> int:
    """Chunk by chunk, each a statement that answers how many it deleted, until there are no more."""
    total = 0
    while count := int(await db.fetchval(statement, *arguments)):
        total += count
    return total
