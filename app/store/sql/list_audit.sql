-- Rows of the audit, newest first. {within} has only the filters that are given, so that the planner knows which index serves them.
select a.at, a.id, n.name as tenant, a.actor, a.actor_key, a.actor_tenant, a.actor_scope, a.verb, a.noun, a.name, a.outcome, a.code,
       a.before, a.after, a.address, a.request_id, a.replica
from sluice.audit a join sluice.tenants n on n.id = a.tenant_id
where {within}
order by a.at desc, a.id desc limit $1
