-- Up to $1 handlers of all tenants that have a breaker or an adaptive limit, or are parked.
select n.name as tenant, h.name as handler, case when h.breaker is null then null
    when h.effective_max_concurrency = 0 then 'open' when h.half_open then 'half_open' else 'closed' end as state,
  least(h.max_concurrency, h.effective_max_concurrency) as max_concurrency,
  greatest(0, extract(epoch from h.parked_until - clock_timestamp()))::double precision as parked_seconds
from sluice.handlers h join sluice.tenants n on n.id = h.tenant_id
where h.deleted_at is null and (h.breaker is not null or h.adaptive is not null or h.parked_until > clock_timestamp())
order by h.tenant_id, h.name limit $1
