-- Live tasks as shown.
-- state: as stored, except that a scheduled task counts as ready from its run_at on, and a running one from the end of its lease
-- on. waits: for a task that is not running, the facts by which app/domain/waiting.py says what it waits for (WaitingFacts); no
-- decision is taken here. Running tasks are counted only if there is a limit; otherwise they would be read again for each row of a
-- page. Of a flow that a claim has parked, `parked` is the bucket that the claim found without room. behind: another ready task of its
-- lane, or of its flow, comes first. The head of a lane is looked for once per lane, since while a transaction elsewhere holds back the
-- vacuum, it lies behind all the tasks that were taken before. So {source} has to name few rows by itself.
select t.id, q.name as queue, h.name as handler,
  case when {running} then 'running' when t.state = :state_scheduled and t.run_at > clock_timestamp() then 'scheduled'
    else 'ready' end as state,
  null::text as reason, t.priority, {payload} as payload, t.options, t.idempotency_key, t.unique_key,
  t.created_at, t.run_at, t.last_started_at as started_at, null::timestamptz as ended_at, t.expires_at, t.attempt,
  coalesce(t.max_attempts, q.max_attempts) as max_attempts,
  coalesce((t.options ->> 'timeout_seconds')::double precision, q.timeout_seconds, h.timeout_seconds) as timeout_seconds,
  t.last_error, null::bytea as result, null::text as result_format, false as result_truncated, t.progress,
  case when {running} then t.lease_expires_at end as lease_expires_at, t.last_replica as replica, t.batch_id, t.parent_id,
  w.facts as waits, case when {running} and t.renewed_at > t.last_started_at then t.renewed_at end as renewed_at,
  t.tenant_id
from {source} t
join sluice.queues q on q.id = t.queue_id
join sluice.tenants n on n.id = t.tenant_id
left join sluice.handlers h on h.id = coalesce(nullif(t.handler_id, 0), q.handler_id)
left join lateral (
  select g.id, g.priority, g.vt, g.parked_on, g.parked_limit, l.name as limit_name, c.until,
    coalesce(l.paused or k.paused, false) as paused,
    nullif((select b.key from sluice.flow_buckets_v1(t.tenant_id, t.queue_id, h.id, g.key, g.own_limits) b
            where b.bucket_id = g.parked_on limit 1), '') as bucket_key,
    case
      when l.kind = 'queue_rate' then 'queue_rate' when l.kind = 'handler_rate' then 'handler_rate'
      when l.kind = 'tenant_rate' then 'global_rate'
      when k.paused then 'key_paused'
      when l.paused then 'limit'
      when c.until is not null then case l.kind when 'queue_key' then 'key_rate' else 'limit_rate' end
      when l.ordered then 'ordering'
      when l.kind = 'queue_key' then 'key_limit'
      when l.kind = 'named' then 'limit' end as code
  from sluice.flows g
  left join sluice.limits l on l.id = g.parked_limit
  left join sluice.limit_keys k on k.bucket_id = g.parked_on
  left join lateral (select r.open_at as until from sluice.rate_clocks r
                     where r.bucket_id = g.parked_on and r.open_at > clock_timestamp()) c on true
  where g.id = coalesce(t.flow_id, sluice.hash_v1('plain ' || t.queue_id::text || ' ' || t.handler_id::text))
    and (t.flow_id is not null or q.flows or n.flows or h.flows)) f on true
left join (
  with heads as materialized (
    select l.queue_id, l.handler_id, (
      select r.id from sluice.tasks r
      where r.queue_id = l.queue_id and r.handler_id = l.handler_id and r.state = :state_ready and r.flow_id is null
      order by r.priority desc, r.run_at, r.id limit 1) as id
    from (select distinct x.queue_id, x.handler_id from {source} x where x.flow_id is null and x.state = :state_ready) l)
  select * from heads) lane_head
  on lane_head.queue_id = t.queue_id and lane_head.handler_id = t.handler_id and t.flow_id is null and t.state = :state_ready
left join lateral (
  select r.id from sluice.tasks r
  where r.queue_id = t.queue_id and r.flow_id = t.flow_id and r.state = :state_ready
  order by r.priority desc, r.run_at, r.id limit 1) flow_head on t.flow_id is not null and t.state = :state_ready
cross join lateral (select case when not {running} then json_strip_nulls(json_build_object(
    'queue', q.name, 'tenant', n.name, 'queue_id', q.id, 'lane', t.handler_id, 'flow_id', t.flow_id, 'handler_id', h.id,
    'run_at', case when t.state = :state_scheduled and t.run_at > clock_timestamp() then t.run_at end,
    'failed_at', case when t.last_outcome in ('failed', 'pushed_back', 'timeout', 'unreachable', 'too_large', 'egress_denied')
                        and (t.attempt > 0 or not t.last_counted) then t.last_ended_at end,
    'promoted', t.state <> :state_scheduled,
    'paused', q.paused, 'paused_at', case when q.paused then q.paused_at end,
    'handler', h.name, 'disabled', not h.enabled, 'disabled_at', case when not h.enabled then h.disabled_at end,
    'disabled_reason', case when not h.enabled then h.disabled_reason end,
    'parked_until', case when h.parked_until > clock_timestamp() then h.parked_until end,
    'breaker_open', h.effective_max_concurrency = 0 or h.half_open,
    'engine', exists (select {engines}),
    'worker', case when h.id is null then
      greatest(q.updated_at, (select w.asked_at from sluice.queue_workers w where w.queue_id = q.id))
        > clock_timestamp() - make_interval(secs => {no_worker_seconds})
      or coalesce((select true from sluice.tasks r where {others_running} and r.tenant_id = t.tenant_id and r.queue_id = q.id limit 1), false) end,
    'tenant_limit', case when least(n.max_concurrency, n.granted_max_concurrency) is not null then json_build_object(
      'max', least(n.max_concurrency, n.granted_max_concurrency), 'used', (
        select count(*) from sluice.tasks r where {others_running} and r.tenant_id = t.tenant_id)) end,
    'handler_limit', case when least(h.max_concurrency, h.effective_max_concurrency) is not null then json_build_object(
      'max', least(h.max_concurrency, h.effective_max_concurrency), 'used', (
        select count(*) from sluice.tasks r where {others_running} and r.tenant_id = t.tenant_id and r.lease_handler_id = h.id)) end,
    'queue_limit', case when q.max_concurrency is not null then json_build_object(
      'max', q.max_concurrency, 'used', (
        select count(*) from sluice.tasks r where {others_running} and r.tenant_id = t.tenant_id and r.queue_id = q.id)) end,
    'parked', case when f.code is not null then json_build_object(
      'code', f.code, 'limit', f.limit_name, 'key', f.bucket_key, 'until', f.until, 'bucket', f.parked_on, 'limit_id', f.parked_limit,
      'paused', f.paused) end,
    'fair_share', f.id is not null and f.parked_on is null and exists (
      select from sluice.flows o
      where o.queue_id = t.queue_id and o.handler_id = t.handler_id and o.parked_on is null and not o.plain
        and (-o.priority, o.vt, o.id) < (-f.priority, f.vt, f.id)),
    'busy', (select bool_and(t.tenant_id = any(e.short_tenants) or q.id = any(e.short_queues)) {engines}),
    'behind', coalesce(lane_head.id, flow_head.id) <> t.id)) end::text as facts) w
where {where}
