-- Up to $1 schedules of all tenants, whatever their health; if there are more, show_troubled_schedules is used instead.
select n.name as tenant, s.name, s.paused, s.missed, s.next_nominal_at,
  case when s.paused then 0 else greatest(0, coalesce(extract(epoch from clock_timestamp() - s.look_at), 0)) end::float8
    as overdue_seconds
from sluice.schedules s join sluice.tenants n on n.id = s.tenant_id
where s.deleted_at is null order by s.tenant_id, s.name limit $1
