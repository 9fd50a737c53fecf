-- What `why` says beside the facts of a waiting task (show_live_tasks): of tenant $1, queue $2, lane $3, flow $4 (null: plain tasks), in which
-- the task stands at priority $5, run_at $6 and id $7 (null: nobody stands there, so nothing is counted).
-- holders: of the levels that are full, and of the bucket that its flow is parked on. $8: of the tenant, $9: of the queue, $10: of this
-- handler, $11: of this bucket of the limit $12. Of each, the longest running of at most 1,000.
-- ahead: how many come first, up to $13. top: the highest priority of them. first: of the ordered key $16, its oldest unfinished task.
-- started: how many tasks of the queue have started since $14; handler $15 is the one that would be called.
with ahead as (
  select count(*) as n from (
    (select from sluice.tasks r where $4::bigint is null and r.queue_id = $2 and r.handler_id = $3 and r.state = :state_ready
       and r.flow_id is null and r.priority > $5::smallint limit $13)
    union all
    (select from sluice.tasks r where $4::bigint is null and r.queue_id = $2 and r.handler_id = $3 and r.state = :state_ready
       and r.flow_id is null and r.priority = $5::smallint and (r.run_at, r.id) < ($6::timestamptz, $7::uuid) limit $13)
    union all
    (select from sluice.tasks r where r.queue_id = $2 and r.flow_id = $4::bigint and r.state = :state_ready
       and r.priority > $5::smallint limit $13)
    union all
    (select from sluice.tasks r where r.queue_id = $2 and r.flow_id = $4::bigint and r.state = :state_ready
       and r.priority = $5::smallint and (r.run_at, r.id) < ($6::timestamptz, $7::uuid) limit $13)
    limit $13) a)
select (select n from ahead) as ahead,
  (select max(p.priority) from (
     (select r.priority from sluice.tasks r where r.queue_id = $2 and r.handler_id = $3 and r.state = :state_ready and r.flow_id is null
      order by r.priority desc, r.run_at, r.id limit 1)
     union all
     (select f.priority from sluice.flows f where f.queue_id = $2 and f.handler_id = $3 and f.parked_on is null and not f.plain
      order by f.priority desc, f.vt, f.id limit 1)) p) as top,
  (select coalesce(sum(m.started), 0)::bigint from sluice.queue_minutes m where m.queue_id = $2 and m.minute >= $14) as started,
  (select max(e.seen_at) from sluice.replicas e where e.roles <> 'api' and not e.draining) as engine_seen_at,
  (select w.asked_at from sluice.queue_workers w where w.queue_id = $2) as worker_asked_at,
  (select d.health::text from sluice.handler_health d where d.handler_id = $15) as health,
  case when $8 then {of_tenant} end as tenant_holders,
  case when $9 then {of_queue} end as queue_holders,
  case when $10::bigint is not null then {of_handler} end as handler_holders,
  case when $11::bigint is not null then {of_bucket} end as bucket_holders,
  b.max_concurrency, b.held, b.tokens, b.burst, b.ordered, l.kind, l.keyed, coalesce(l.paused_at, k.paused_at) as limit_paused_at,
  l.paused as limit_paused, coalesce(k.paused, false) as key_paused,
  o.id as first_id, o.state as first_state, o.last_started_at as first_started_at, o.last_replica as first_replica,
  o.lease_expires_at as first_expires_at
from (select 1) one
left join sluice.limits l on l.id = $12::bigint
left join sluice.limit_keys k on k.bucket_id = $11::bigint
left join lateral sluice.bucket_states_v1(array[$11::bigint], array[$12::bigint], statement_timestamp(), '{}') b on l.id is not null
left join lateral (
  select r.* from sluice.tasks r
  where b.ordered and r.queue_id = $2 and r.options ->> 'key' = $16 and r.flow_id is not null and r.claims >= 0
  order by r.created_at, r.id limit 1) o on true
