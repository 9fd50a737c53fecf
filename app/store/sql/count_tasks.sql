-- Tasks of one queue by state, as shown: a task that is due, or whose lease has expired, counts as ready before anything moves it.
-- The limit on due tasks keeps their plan on the index by tenant and run_at whatever the statistics; promotion leaves few of them.
select statement_timestamp() as now, scheduled.n - due.n as scheduled, ready.n + due.n + running.lapsed as ready,
       running.n - running.lapsed as running,
       ended.succeeded, ended.dead, ended.cancelled,
       extract(epoch from statement_timestamp() - least(ready.oldest, due.oldest))::double precision as oldest_ready_age_seconds
from
  (select plain.n + flows.n as n, least(plain.oldest, flows.oldest) as oldest from
     (select count(*) as n, min(run_at) as oldest from sluice.tasks
      where queue_id = $1 and state = :state_ready and flow_id is null) plain,
     (select count(*) as n, min(run_at) as oldest from sluice.tasks
      where queue_id = $1 and state = :state_ready and flow_id is not null) flows) ready,
  (select count(*) as n, min(run_at) as oldest
   from (select queue_id, run_at from sluice.tasks
         where state = :state_scheduled and claims >= 0 and tenant_id = (select tenant_id from sluice.queues where id = $1)
           and run_at <= statement_timestamp() order by run_at limit 1000) d
   where queue_id = $1) due,
  (select count(*) as n from sluice.tasks where queue_id = $1 and state = :state_scheduled) scheduled,
  (select count(*) as n, count(*) filter (where lease_expires_at <= statement_timestamp()) as lapsed
   from sluice.tasks where state = :state_running and queue_id = $1
     and tenant_id = (select tenant_id from sluice.queues where id = $1)) running,
  (select count(*) filter (where state = :state_succeeded) as succeeded, count(*) filter (where state = :state_dead) as dead,
          count(*) filter (where state = :state_cancelled) as cancelled
   from sluice.task_history where queue_id = $1 and kept_until > statement_timestamp()) ended
