-- Live tasks as shown.
-- state: as stored, except that a scheduled task counts as ready from its run_at on, and a running one from the end of its lease
-- on. waiting_for names the first reason why a claim would not take the task, in the claim's order: paused or disabled, nobody to
-- claim it, a limit, no free place. Running tasks are counted only if there is a limit; otherwise they would be read again for
-- each row of a page. Of a flow that a claim has parked, it names what the claim found without room; waiting_on says more of that.
select t.id, q.name as queue, h.name as handler,
  case when {running} then 'running' when t.state = :state_scheduled and t.run_at > clock_timestamp() then 'scheduled'
    else 'ready' end as state,
  null::text as reason, t.priority, {payload} as payload, t.options, t.idempotency_key, t.unique_key,
  t.created_at, t.run_at, t.last_started_at as started_at, null::timestamptz as ended_at, t.expires_at, t.attempt,
  coalesce(t.max_attempts, q.max_attempts) as max_attempts,
  coalesce((t.options ->> 'timeout_seconds')::double precision, q.timeout_seconds, h.timeout_seconds) as timeout_seconds,
  t.last_error, null::bytea as result, null::text as result_format, false as result_truncated, t.progress,
  case when {running} then t.lease_expires_at end as lease_expires_at, t.last_replica as replica, t.batch_id, t.parent_id,
  w.code as waiting_for,
  case
    when w.code = 'handler_parked' then jsonb_build_object('limit', null, 'key', null, 'until', h.parked_until)
    when w.code = f.code then jsonb_build_object('limit', f.limit_name, 'key', f.bucket_key, 'until', f.until) end as waiting_on
from {source} t
join sluice.queues q on q.id = t.queue_id
join sluice.tenants n on n.id = t.tenant_id
left join sluice.handlers h on h.id = coalesce(nullif(t.handler_id, 0), q.handler_id)
left join lateral (
  select g.id, g.priority, g.vt, g.parked_on, l.name as limit_name, c.until,
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
cross join lateral (select case
    when {running} then null
    when t.state = :state_scheduled and t.run_at > clock_timestamp() then 'run_at'
    when q.paused then 'queue_paused'
    when h.id is null and f.code is not null then f.code
    when h.id is null then case
      when t.state = :state_scheduled and not exists (select {engines}) then 'no_engine'
      when greatest(q.updated_at, (select w.asked_at from sluice.queue_workers w where w.queue_id = q.id))
             > clock_timestamp() - make_interval(secs => {no_worker_seconds})
           or (select true from sluice.tasks r
               where {others_running} and r.tenant_id = t.tenant_id and r.queue_id = q.id limit 1)
        then 'worker'
      else 'no_worker' end
    when not h.enabled then 'handler_disabled'
    when h.parked_until > clock_timestamp() then 'handler_parked'
    when h.effective_max_concurrency = 0 or h.half_open then 'breaker_open'
    when not exists (select {engines}) then 'no_engine'
    when least(n.max_concurrency, n.granted_max_concurrency) is not null
         and least(n.max_concurrency, n.granted_max_concurrency) <= (select count(*) from sluice.tasks r
                                                                     where {others_running} and r.tenant_id = t.tenant_id)
      then 'global_limit'
    when least(h.max_concurrency, h.effective_max_concurrency) <= (select count(*) from sluice.tasks r
                               where {others_running} and r.tenant_id = t.tenant_id and r.lease_handler_id = h.id)
      then 'handler_limit'
    when q.max_concurrency is not null and q.max_concurrency <= (select count(*) from sluice.tasks r
                               where {others_running} and r.tenant_id = t.tenant_id and r.queue_id = q.id)
      then 'queue_limit'
    when f.code is not null then f.code
    when exists (
      select from sluice.flows o
      where f.parked_on is null and o.queue_id = t.queue_id and o.handler_id = t.handler_id and o.parked_on is null and not o.plain
        and (-o.priority, o.vt, o.id) < (-f.priority, f.vt, f.id)) then 'fair_share'
    when (select bool_and(t.tenant_id = any(e.short_tenants) or q.id = any(e.short_queues)) {engines}) then 'replicas_busy'
  end as code) w
where {where}
