"""Chunked deletion of what has served its time."""

from app.store.db import Database

CHUNK = 2000
RECEIPT_HOURS = 1

_KEYS = """
delete from sluice.idempotency_keys k using (
  select queue_id, key from sluice.idempotency_keys where expires_at <= clock_timestamp()
  order by expires_at limit $1 for update skip locked) x
where k.queue_id = x.queue_id and k.key = x.key and k.expires_at <= clock_timestamp()
returning 1
"""

_RECEIPTS = """
delete from sluice.receipts where group_id = any(array(
  select group_id from sluice.receipts where created_at < clock_timestamp() - make_interval(hours => $2)
  order by created_at limit $1))
returning 1
"""


async def idempotency_keys(db: Database) -> int:
    """Forget keys past their time; how many."""
    total = 0
    while count := len(await db.fetch(_KEYS, CHUNK)):
        total += count
    return total


async def receipts(db: Database) -> int:
    total = 0
    while count := len(await db.fetch(_RECEIPTS, CHUNK, RECEIPT_HOURS)):
        total += count
    return total
