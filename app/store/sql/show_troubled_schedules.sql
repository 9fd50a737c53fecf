-- Schedules that are overdue or have missed times, found by the indexes of both, so that only the rows shown are read, however many
-- schedules there are.
select n.name as tenant, s.name, s.paused, s.missed, s.next_nominal_at,
  case when s.paused then 0 else greatest(0, coalesce(extract(epoch from clock_timestamp() - s.look_at), 0)) end::float8
    as overdue_seconds
from (
  (select d.* from sluice.tenants n cross join lateral (
     select s.* from sluice.schedules s
     where s.tenant_id = n.id and s.look_at < statement_timestamp() - interval '1 second' and not s.paused
     order by s.look_at limit $1) d
   order by d.look_at limit $1)
  union all
  (select m.* from sluice.schedules m where m.missed > 0 and m.deleted_at is null
     and (m.look_at is null or m.look_at >= statement_timestamp() - interval '1 second' or m.paused) order by m.id limit $1)) s
join sluice.tenants n on n.id = s.tenant_id
