-- The named limits of all tenants, for metrics: what they allow, what is taken of them over all keys, and how many keys wait for them.
-- A hold counts while its task is running under it, as for claims.
select n.name as tenant, l.name, l.max_concurrency, l.keyed, coalesce(u.n, 0) as used, coalesce(w.n, 0) as waiting_keys
from sluice.limits l
join sluice.tenants n on n.id = l.tenant_id
left join (
  select h.limit_id, count(*) as n from sluice.holds h join sluice.tasks t on t.id = h.task_id
  where t.claims = h.claims and t.lease_token is not null group by h.limit_id) u on u.limit_id = l.id
left join (
  select f.parked_limit, count(*) as n from sluice.flows f where f.parked_on is not null group by f.parked_limit) w on w.parked_limit = l.id
where l.kind = 'named'
order by l.id limit $1
