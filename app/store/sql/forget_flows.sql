-- Deletes the flows of queue $2 of tenant $1, under the tenant's gate. It has no tasks, but flows that were parked, or open in a lane that
-- nobody claimed from, are there still.
delete from sluice.flows f where f.id = any(array(
  select o.id from sluice.flows o where o.queue_id = $2 and o.parked_on is null and not o.plain
  union all select p.id from sluice.flows p where p.queue_id = $2 and p.parked_on is not null
  union all select l.id from sluice.flows l where l.tenant_id = $1 and l.queue_id = $2 and l.plain))
