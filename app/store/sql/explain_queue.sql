-- What `why` says of queue $2 of tenant $1 beside its blockers: ready tasks up to $4, running ones, what has happened since $3 by
-- whole minutes, and when the first of its scheduled tasks is due (of the oldest 1,000: there is no index by queue and run_at).
select clock_timestamp() as now,
  (select count(*) from (
     (select from sluice.tasks where queue_id = $2 and state = :state_ready and flow_id is null limit $4)
     union all
     (select from sluice.tasks where queue_id = $2 and state = :state_ready and flow_id is not null limit $4) limit $4) r) as ready,
  (select count(*) from sluice.tasks
   where state = :state_running and tenant_id = $1 and queue_id = $2 and lease_expires_at > clock_timestamp()) as running,
  coalesce(m.started, 0)::bigint as started, coalesce(m.ended, 0)::bigint as ended, coalesce(m.enqueued, 0)::bigint as enqueued,
  (select min(s.run_at) from (
     select run_at from sluice.tasks where queue_id = $2 and state = :state_scheduled order by id limit 1000) s) as next_run_at
from (select sum(started) as started, sum(succeeded + dead + cancelled) as ended, sum(enqueued) as enqueued
      from sluice.queue_minutes where queue_id = $2 and minute >= $3) m
