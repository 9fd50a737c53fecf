-- Deletes a chunk of expired idempotency keys. It uses the statement's time, because an index cannot be searched by a clock that
-- moves. SKIP LOCKED: an enqueue may hold the key that it is replacing.
with gone as (
  delete from sluice.idempotency_keys k using (
    select queue_id, key from sluice.idempotency_keys where expires_at <= statement_timestamp()
    order by expires_at limit $1 for update skip locked) x
  where k.queue_id = x.queue_id and k.key = x.key and k.expires_at <= statement_timestamp()
  returning 1)
select count(*) from gone
