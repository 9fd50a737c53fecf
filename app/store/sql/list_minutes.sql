-- The minutes of a queue since $2, by the primary key.
select minute, queue_id, enqueued, started, succeeded, dead, cancelled, retried, wait, run
from sluice.queue_minutes where queue_id = $1 and minute >= $2
