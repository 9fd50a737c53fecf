-- How all sources fare, for metrics and alarms, by name; above $2, the first.
select t.name as tenant, s.name, s.paused, x.lag, x.oldest_age_seconds, x.last_error,
       extract(epoch from clock_timestamp() - r.failing_since)::double precision as failing_seconds,
       extract(epoch from clock_timestamp() - greatest(s.updated_at, s.created_at))::double precision as changed_seconds,
       coalesce(r.receivers, 0)::integer as receivers
from sluice.sources s
join sluice.tenants t on t.id = s.tenant_id
join sluice.source_states x on x.source_id = s.id
left join lateral (
  select case when count(*) = count(v.failing_since) then max(v.failing_since) end as failing_since, count(*) as receivers
  from sluice.source_receivers v join sluice.replicas p on p.id = v.replica_id
  where v.source_id = s.id and p.seen_at > clock_timestamp() - make_interval(secs => $1)) r on true
where $3::bigint is null or s.tenant_id = $3
order by t.name collate "C", s.name collate "C" limit $2
