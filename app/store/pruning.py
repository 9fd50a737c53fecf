"""Chunked deletion of expired rows."""

from app.domain.breakers import MAX_WINDOW_SECONDS
from app.store.db import Database
from app.store.statements import sql

CHUNK = 2000
RECEIPT_HOURS = 1
ACTION_DAYS = 30

_KEYS = sql("prune_idempotency_keys")
_RECEIPTS = sql("prune_receipts")
_FOLLOWUP_KEYS = sql("prune_followup_keys")
_BATCHES = sql("prune_batches")
_ACTIONS = sql("prune_actions")
_ACTION_TASKS = sql("prune_action_tasks")
_RUNS = sql("prune_runs")
_RATE_CLOCKS = sql("prune_rate_clocks")
_HANDLER_CALLS = sql("prune_handler_calls")


async def idempotency_keys(db: Database) -> int:
    """Delete expired keys; return how many."""
    return await _all(db, _KEYS, CHUNK)


async def receipts(db: Database) -> int:
    return await _all(db, _RECEIPTS, CHUNK, RECEIPT_HOURS)


async def followup_keys(db: Database) -> int:
    """Delete the keys of batches that completed long ago."""
    return await _all(db, _FOLLOWUP_KEYS, CHUNK)


async def batches(db: Database) -> int:
    return await _all(db, _BATCHES, CHUNK)


async def schedule_runs(db: Database) -> int:
    """Delete expired ledger rows; unfinished runs stay."""
    return await _all(db, _RUNS, CHUNK)


async def actions(db: Database) -> int:
    """Delete actions that ended long ago, and what ended ones have left on their lists."""
    return await _all(db, _ACTION_TASKS, CHUNK) + await _all(db, _ACTIONS, CHUNK, ACTION_DAYS)


async def rate_clocks(db: Database) -> int:
    """Delete the clocks of rates that have long been unused."""
    return await _all(db, _RATE_CLOCKS, CHUNK)


async def handler_calls(db: Database) -> int:
    """Delete counts of calls that no window reaches any longer."""
    return await _all(db, _HANDLER_CALLS, CHUNK, MAX_WINDOW_SECONDS + 60)


async def _all(db: Database, statement: str, *arguments: int) -> int:
    """Delete in chunks, one statement each, which returns how many it deleted, until nothing is left."""
    total = 0
    while count := int(await db.fetchval(statement, *arguments)):
        total += count
    return total
