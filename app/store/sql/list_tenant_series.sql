-- The minutes of tenant $1 from $2 to before $3, summed already, those of each of its queues from $3 on, and as queue "" those in which
-- the queues were sampled. `offset 0` finds those of a queue by its key: there is no index by minute.
select null as queue, minute, enqueued, started, succeeded, dead, cancelled, retried, wait, run, ready, running
from sluice.tenant_minutes where tenant_id = $1 and minute >= $2 and minute < $3
union all
select q.name, m.minute, m.enqueued, m.started, m.succeeded, m.dead, m.cancelled, m.retried, m.wait, m.run, m.ready, m.running
from sluice.queues q cross join lateral (
  select * from sluice.queue_minutes m where m.queue_id = q.id and m.minute >= $3 offset 0) m
where q.tenant_id = $1
union all
select '', minute, 0, 0, 0, 0, 0, 0, '{}', '{}', null, null from sluice.queue_minutes where queue_id = 0 and minute >= $2
