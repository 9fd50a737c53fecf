-- Deletes a chunk of expired ledger rows; unfinished runs stay.
with gone as (
  delete from sluice.schedule_runs where id = any(array(
    select id from sluice.schedule_runs where kept_until <= statement_timestamp() and outcome not in ('running', 'waiting')
    order by kept_until limit $1))
  returning 1)
select count(*) from gone
