-- Deletes a chunk of clocks of rates that have paid everything back and open nothing: without one, a bucket is as full as with it.
-- A claim that charges one meanwhile keeps it: the conditions hold for the row as it is when it is locked.
with gone as (
  delete from sluice.rate_clocks r using (
    select c.bucket_id from sluice.rate_clocks c
    where c.tat < statement_timestamp() - interval '1 hour' and c.open_at is null limit $1 for update skip locked) x
  where r.bucket_id = x.bucket_id
  returning 1)
select count(*) from gone
