-- Unfinished tasks of queue $1 by state, as shown: one that is due, or whose lease has expired, counts as ready before anything moves it.
-- As in count_tasks, with counts of all due ones: there may be many where nothing promotes them.
select ready.n + scheduled.due + running.lapsed as ready, scheduled.n - scheduled.due as scheduled, running.n - running.lapsed as running
from
  (select (select count(*) from sluice.tasks where queue_id = $1 and state = :state_ready and flow_id is null)
        + (select count(*) from sluice.tasks where queue_id = $1 and state = :state_ready and flow_id is not null) as n) ready,
  (select count(*) as n, count(*) filter (where run_at <= statement_timestamp()) as due
   from sluice.tasks where queue_id = $1 and state = :state_scheduled) scheduled,
  (select count(*) as n, count(*) filter (where lease_expires_at <= statement_timestamp()) as lapsed
   from sluice.tasks where state = :state_running and queue_id = $1
     and tenant_id = (select tenant_id from sluice.queues where id = $1)) running
