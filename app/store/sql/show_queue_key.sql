-- What key $3 of queue $2 holds now, in the columns of show_limit_use, and how many of its tasks wait: one row for each of its first $4
-- running tasks, or one without a task if there is none. limit_id: what holds for the keys of the queue.
with holders as (
  select t.id, t.last_started_at as started_at, count(*) over () as holding, row_number() over (order by t.last_started_at, t.id) as place
  from sluice.tasks t
  where t.state = :state_running and t.tenant_id = $1 and t.queue_id = $2 and t.options ->> 'key' = $3)
select l.id as limit_id, $3 as bucket_key, coalesce(o.holding, 0) as holding, o.id, q.name as queue, $3 as key, o.started_at,
  (select count(*) from sluice.flows f where f.queue_id = $2 and f.key = $3 and f.parked_on is not null and f.parked_limit = l.id)
    as waiting_keys,
  (select count(*) from sluice.tasks t where t.queue_id = $2 and t.options ->> 'key' = $3 and t.flow_id is not null
     and t.claims >= 0 and t.state <> :state_running) as waiting,
  s.max_concurrency as effective_max_concurrency, s.paused, s.tokens, s.burst, s.unit_seconds, s.open_at, statement_timestamp() as now
from sluice.queues q
left join sluice.limits l on l.kind = 'queue_key' and l.owner_id = q.id
left join holders o on o.place <= $4
left join lateral sluice.bucket_states_v1(array[sluice.bucket_v1(l.id, $3)], array[l.id], statement_timestamp(), '{}') s on true
where q.id = $2
order by o.place
