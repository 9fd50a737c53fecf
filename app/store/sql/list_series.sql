-- The minutes of queues ($1) since $2 by the primary key, and as queue "" those in which the queues were sampled.
select case when queue_id = 0 then '' end as queue, minute, enqueued, started, succeeded, dead, cancelled, retried, wait, run, ready, running
from sluice.queue_minutes where queue_id = any(array[0] || $1::bigint[]) and minute >= $2
