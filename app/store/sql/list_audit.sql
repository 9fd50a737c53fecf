-- Rows of the audit by their keys, newest first. The limit keeps the planner from joining whole months with a few keys.
select a.at, a.id, n.name as tenant, a.actor, a.actor_key, a.actor_tenant, a.actor_scope, a.verb, a.noun, a.name, a.outcome, a.code,
       a.calls, a.before, a.after, a.address, a.request_id, a.replica
from unnest($1::timestamptz[], $2::uuid[]) k(at, id)
cross join lateral (select * from sluice.audit r where r.at = k.at and r.id = k.id limit 1) a
join sluice.tenants n on n.id = a.tenant_id
order by a.at desc, a.id desc
