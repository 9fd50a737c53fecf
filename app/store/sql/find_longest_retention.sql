-- The longest that any queue keeps a task, in days; where there are sources, at least as long as the keys of their messages ($1 days).
select greatest(coalesce(max(greatest(succeeded_days, cancelled_days, dead_days, idempotency_seconds / 86400)), 0),
                (select $1::double precision from sluice.sources limit 1))
from sluice.queues where deleted_at is null
