-- How many tasks were enqueued in these queues ($2) of tenant $1 per minute from $3 to before $4, by the primary key.
select q.name, m.minute, m.enqueued
from sluice.queues q join sluice.queue_minutes m on m.queue_id = q.id
where q.tenant_id = $1 and q.name = any($2::text[]) and q.deleted_at is null and m.minute >= $3 and m.minute < $4
