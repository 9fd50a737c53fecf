-- The minutes of tenant $1 from $2 on that have been summed over its queues, and as queue "" those in which the queues were sampled.
select null as queue, minute, enqueued, started, succeeded, dead, cancelled, retried, wait, run, ready, running
from sluice.tenant_minutes where tenant_id = $1 and minute >= $2
union all
select '', minute, 0, 0, 0, 0, 0, 0, '{}', '{}', null, null from sluice.queue_minutes where queue_id = 0 and minute >= $2
