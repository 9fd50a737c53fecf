"""Chunked deletion of what has served its time. By the statement's instant: an index cannot be searched for one that moves."""

from app.store.db import Database

CHUNK = 2000
RECEIPT_HOURS = 1

_KEYS = """
with gone as (
  delete from sluice.idempotency_keys k using (
    select queue_id, key from sluice.idempotency_keys where expires_at <= statement_timestamp()
    order by expires_at limit $1 for update skip locked) x
  where k.queue_id = x.queue_id and k.key = x.key and k.expires_at <= statement_timestamp()
  returning 1)
select count(*) from gone
"""

_RECEIPTS = """
with gone as (
  delete from sluice.receipts where group_id = any(array(
    select group_id from sluice.receipts where created_at < statement_timestamp() - make_interval(hours => $2)
    order by created_at limit $1))
  returning 1)
select count(*) from gone
"""

# a batch that a redrive has reopened keeps its keys until all of it has ended again
_FOLLOWUP_KEYS = """
with due as (
  select id from sluice.batches
  where keys_until <= statement_timestamp() and succeeded + dead + cancelled >= total
  order by keys_until limit 100 for update skip locked),
gone as (
  delete from sluice.followup_keys where ctid = any(array(
    select k.ctid
    from due
    cross join lateral (select f.ctid from sluice.followup_keys f where f.batch_id = due.id order by f.root_id limit $1) k
    limit $1))
  returning batch_id),
emptied as (
  update sluice.batches b set keys_until = null
  where b.id = any(array(select id from due)) and (select count(*) from gone) < $1
  returning 1)
select (select count(*) from gone) + (select count(*) from emptied)
"""

_BATCHES = """
with gone as (
  delete from sluice.batches where id = any(array(
    select b.id from sluice.batches b
    where b.kept_until <= statement_timestamp() and b.keys_until is null and b.succeeded + b.dead + b.cancelled >= b.total
      and not b.run_open and not exists (select from sluice.batch_deltas d where d.tenant_id = b.tenant_id and d.batch_id = b.id)
    order by b.kept_until limit $1))
  returning id),
completions as (delete from sluice.batch_completions c using gone g where c.batch_id = g.id)
select count(*) from gone
"""


_RUNS = """
with gone as (
  delete from sluice.schedule_runs where id = any(array(
    select id from sluice.schedule_runs where kept_until <= statement_timestamp() and outcome not in ('running', 'waiting')
    order by kept_until limit $1))
  returning 1)
select count(*) from gone
"""


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
