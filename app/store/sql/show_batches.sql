-- Counts and unfolded deltas are read in one snapshot, so they agree with the live tasks. Ready tasks are the remainder: only a
-- batch's scheduled tasks are counted, and the tenant's running ones, which are never many.
with running as materialized (
  select t.batch_id, count(*) as n from sluice.tasks t where t.state = :state_running and t.tenant_id = $1
    and (t.lease_expires_at > clock_timestamp()) is not false group by 1)
select b.id, q.name as queue, b.sealed, b.created_at, b.cancelled_at, b.cancel_reason, b.completed_at, b.recent, b.recent_at,
  b.total + d.total as total, b.succeeded + d.succeeded as succeeded, b.dead + d.dead as dead,
  b.cancelled + d.cancelled as cancelled, coalesce((select r.n from running r where r.batch_id = b.id), 0) as running,
  w.scheduled, c.on_complete, clock_timestamp() as now
from {source} b
join sluice.queues q on q.id = b.queue_id
cross join lateral (
  select coalesce(sum(d.total), 0)::bigint as total, coalesce(sum(d.succeeded), 0)::bigint as succeeded,
         coalesce(sum(d.dead), 0)::bigint as dead, coalesce(sum(d.cancelled), 0)::bigint as cancelled
  from sluice.batch_deltas d where d.tenant_id = b.tenant_id and d.batch_id = b.id) d
cross join lateral (
  select count(*) filter (where t.run_at > clock_timestamp()) as scheduled
  from (select t.run_at from sluice.tasks t where t.batch_id = b.id and t.state = :state_scheduled limit {looked_at}) t) w
cross join lateral (
  select coalesce(json_agg(json_build_object('queue', n.name, 'task', c.task_id)), '[]') as on_complete
  from (select c.queue_id, c.task_id from sluice.batch_completions c where c.batch_id = b.id order by c.digest limit 100) c
  join sluice.queues n on n.id = c.queue_id) c
{which}
