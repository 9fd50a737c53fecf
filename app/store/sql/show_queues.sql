-- Every queue of every tenant. Each state's index is read once for all queues, so that the cost depends on the tasks and not on the
-- number of queues. Readable dead tasks are all dead ones, from the index alone, minus the expired ones, which only the oldest
-- partitions have.
with ready as (
  select queue_id, sum(n)::bigint as n, min(oldest) as oldest from (
    select queue_id, count(*) as n, min(run_at) as oldest from sluice.tasks
    where state = :state_ready and flow_id is null group by queue_id
    union all
    select queue_id, count(*), min(run_at) from sluice.tasks where state = :state_ready and flow_id is not null group by queue_id) r
  group by queue_id),
due as (select queue_id, count(*) as n, min(run_at) as oldest
        from sluice.tenants n cross join lateral (
          select queue_id, run_at from sluice.tasks
          where state = :state_scheduled and claims >= 0 and tenant_id = n.id and run_at <= statement_timestamp() order by run_at limit 1000) d
        group by queue_id),
scheduled as (select queue_id, count(*) as n from sluice.tasks where state = :state_scheduled group by queue_id),
running as (select queue_id, count(*) as n, count(*) filter (where lease_expires_at <= statement_timestamp()) as lapsed
            from sluice.tasks where state = :state_running group by queue_id),
dead as (select queue_id, count(*) as n from sluice.task_history where state = :state_dead group by queue_id),
forgotten as (select queue_id, count(*) as n from sluice.task_history
              where state = :state_dead and kept_until <= statement_timestamp() group by queue_id)
select n.name as tenant, q.name as queue, q.paused, h.name as handler, h.enabled as handler_enabled, h.disabled_reason,
       coalesce(scheduled.n, 0) - coalesce(due.n, 0) as scheduled,
       coalesce(ready.n, 0) + coalesce(due.n, 0) + coalesce(running.lapsed, 0) as ready,
       coalesce(running.n - running.lapsed, 0) as running, coalesce(dead.n, 0) - coalesce(forgotten.n, 0) as dead,
       extract(epoch from statement_timestamp() - least(ready.oldest, due.oldest))::double precision as oldest_ready_age_seconds,
       coalesce((select sum(m.dead) from sluice.queue_minutes m
                 where m.queue_id = q.id and m.minute > statement_timestamp() - interval '15 minutes'), 0)::bigint as dead_lately,
       least(n.max_concurrency, n.granted_max_concurrency) as tenant_limit, n.granted_max_concurrency as tenant_grant,
       extract(epoch from statement_timestamp() - greatest(q.updated_at, w.asked_at))::double precision as worker_silent_seconds,
       q.id, q.max_concurrency, q.max_depth
from sluice.queues q join sluice.tenants n on n.id = q.tenant_id
left join sluice.handlers h on h.id = q.handler_id
left join sluice.queue_workers w on w.queue_id = q.id
left join ready on ready.queue_id = q.id left join due on due.queue_id = q.id
left join scheduled on scheduled.queue_id = q.id left join running on running.queue_id = q.id
left join dead on dead.queue_id = q.id left join forgotten on forgotten.queue_id = q.id
where q.deleted_at is null order by n.name, q.name
