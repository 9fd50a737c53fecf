-- Deletes a chunk of batches that have outlived all their tasks, except those with something to fold, or whose run is still open.
with gone as (
  delete from sluice.batches where id = any(array(
    select b.id from sluice.batches b
    where b.kept_until <= statement_timestamp() and b.keys_until is null and b.succeeded + b.dead + b.cancelled >= b.total
      and not b.run_open and not exists (select from sluice.batch_deltas d where d.tenant_id = b.tenant_id and d.batch_id = b.id)
    order by b.kept_until limit $1))
  returning id),
completions as (delete from sluice.batch_completions c using gone g where c.batch_id = g.id)
select count(*) from gone
