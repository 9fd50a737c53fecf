-- The oldest waiting start of each of these schedules: one index probe each.
select w.id as schedule_id, r.id::text, coalesce(r.overlap, '') as overlap
from unnest($1::bigint[]) w(id)
cross join lateral (
  select r.id, r.overlap from sluice.schedule_runs r
  where r.schedule_id = w.id and r.outcome = 'waiting' order by r.nominal_at, r.id limit 1) r
