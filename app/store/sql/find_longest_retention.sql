-- The longest that any queue keeps a task, in days.
select coalesce(max(greatest(succeeded_days, cancelled_days, dead_days, idempotency_seconds / 86400)), 0)
from sluice.queues where deleted_at is null
