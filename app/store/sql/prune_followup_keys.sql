-- Deletes a chunk of keys of follow-up tasks whose batch completed long ago. A batch reopened by a redrive keeps its keys until all
-- of its tasks have ended again.
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
