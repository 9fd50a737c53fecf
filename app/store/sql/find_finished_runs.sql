-- Runs whose batch has completed and whose end is not in the ledger yet, in the order in which they ended.
-- Tenants share the limit, by one index probe each, so that thousands of runs of one tenant that end at once do not delay the
-- others.
with recursive owners(id) as (
  (select b.tenant_id from sluice.batches b where b.run_open and b.completed_at is not null order by b.tenant_id limit 1)
  union all
  select n.tenant_id from owners o cross join lateral (
    select b.tenant_id from sluice.batches b
    where b.run_open and b.completed_at is not null and b.tenant_id > o.id order by b.tenant_id limit 1) n)
select r.schedule_id, r.id as run_id, b.id as task_id, r.cause,
  case when b.dead > 0 then 'ran_failed' when b.cancelled > 0 or b.cancelled_at is not null then 'cancelled'
       else 'ran_ok' end as outcome
from (select p.* from owners o cross join lateral (
        select w.*, row_number() over (order by w.id) as turn from (
          select b.* from sluice.batches b
          where b.run_open and b.completed_at is not null and b.tenant_id = o.id and b.succeeded + b.dead + b.cancelled >= b.total
          order by b.id limit 4 * greatest(1, $1 / (select count(*) from owners))) w) p
      order by p.turn limit $1) b
join sluice.schedule_runs r on r.task_id = b.id
order by r.schedule_id, b.completed_at
