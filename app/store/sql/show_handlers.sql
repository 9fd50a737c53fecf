-- Up to $1 handlers of all tenants; first those that are disabled or parked, or that have a breaker or an adaptive limit.
select n.name as tenant, h.name as handler, case when h.breaker is null then null
    when h.effective_max_concurrency = 0 then 'open' when h.half_open then 'half_open' else 'closed' end as state,
  least(h.max_concurrency, h.effective_max_concurrency) as max_concurrency,
  greatest(0, extract(epoch from h.parked_until - clock_timestamp()))::double precision as parked_seconds,
  h.enabled, coalesce(r.n, 0) as running
from sluice.handlers h join sluice.tenants n on n.id = h.tenant_id
left join (select lease_handler_id, count(*) as n from sluice.tasks where state = :state_running group by lease_handler_id) r
  on r.lease_handler_id = h.id
where h.deleted_at is null
order by h.enabled and h.breaker is null and h.adaptive is null and coalesce(h.parked_until <= clock_timestamp(), true), h.tenant_id, h.name
limit $1
