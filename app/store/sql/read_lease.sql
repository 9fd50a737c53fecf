-- What the call of a lease holder is validated and counted by, found by its token alone.
select t.tenant_id, t.queue_id, t.handler_id as lane, coalesce(t.lease_handler_id, 0) as handler_id, t.attempt,
       t.last_started_at as started_at, t.lease_owner is not null as called, t.options, t.batch_id,
       n.name as tenant, q.name as queue
from sluice.tasks t join sluice.tenants n on n.id = t.tenant_id join sluice.queues q on q.id = t.queue_id
where t.id = $1 and t.lease_token = $2
