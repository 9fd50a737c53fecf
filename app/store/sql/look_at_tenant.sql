-- All of tenant $1 that its overview shows, in one statement and so at one instant, each part as JSON. What waits is counted queue by
-- queue, so that the tasks of other tenants cost nothing; what runs, is due or has ended unsuccessfully is found by tenant.
-- $2: minutes from here on; $5: only their dead tasks, from here on, which is not later; $3: seconds for which silent replicas are shown; $4: whether the database is looked at, too.
with mine as materialized (select q.* from sluice.queues q where q.tenant_id = $1 and q.deleted_at is null),
running as materialized (
  select queue_id, lease_handler_id, count(*) as n, count(*) filter (where lease_expires_at <= statement_timestamp()) as lapsed,
         min(lease_expires_at) as first_end
  from sluice.tasks where state = :state_running and tenant_id = $1 group by 1, 2),
due as materialized (
  select queue_id, count(*) as n, min(run_at) as oldest
  from (select queue_id, run_at from sluice.tasks
        where state = :state_scheduled and claims >= 0 and tenant_id = $1 and run_at <= statement_timestamp() order by run_at limit 1000) d
  group by 1),
dead as materialized (
  select queue_id, count(*) as n from sluice.task_history
  where tenant_id = $1 and state > :state_succeeded and state = :state_dead and kept_until > statement_timestamp() group by 1),
queues as (
  select q.*, h.name as handler, h.enabled, h.disabled_reason,
         scheduled.n - coalesce(due.n, 0) as scheduled, plain.n + flows.n + coalesce(due.n, 0) + coalesce(r.lapsed, 0) as ready,
         coalesce(r.n - r.lapsed, 0) as running, coalesce(dead.n, 0) as dead,
         extract(epoch from statement_timestamp() - least(plain.oldest, flows.oldest, due.oldest))::double precision as oldest,
         coalesce(m.dead, 0) as dead_lately,
         extract(epoch from statement_timestamp() - greatest(q.updated_at, w.asked_at))::double precision as worker_silent,
         w.asked_at, m.minutes, m.deaths
  from mine q
  left join sluice.handlers h on h.id = q.handler_id
  left join sluice.queue_workers w on w.queue_id = q.id
  left join (select queue_id, sum(n) as n, sum(lapsed) as lapsed from running group by 1) r on r.queue_id = q.id
  left join due on due.queue_id = q.id
  left join dead on dead.queue_id = q.id
  cross join lateral (select count(*) as n, min(t.run_at) as oldest from sluice.tasks t
                      where t.queue_id = q.id and t.state = :state_ready and t.flow_id is null) plain
  cross join lateral (select count(*) as n, min(t.run_at) as oldest from sluice.tasks t
                      where t.queue_id = q.id and t.state = :state_ready and t.flow_id is not null) flows
  cross join lateral (select count(*) as n from sluice.tasks t where t.queue_id = q.id and t.state = :state_scheduled) scheduled
  cross join lateral (
    select json_agg(json_build_array(extract(epoch from m.minute)::bigint, m.enqueued, m.started, m.succeeded, m.dead, m.cancelled,
                                     m.retried, m.wait, m.run)) filter (where m.minute >= $2) as minutes,
           json_agg(json_build_array(extract(epoch from m.minute)::bigint, m.dead)) filter (where m.dead > 0) as deaths, sum(m.dead) as dead
    from sluice.queue_minutes m where m.queue_id = q.id and m.minute >= $5) m),
schedules as (
  select s.id from (select s.id from sluice.schedules s where s.tenant_id = $1 and s.look_at is not null and not s.paused
                    order by s.look_at limit 50) s
  union select s.id from (select s.id from sluice.schedules s where s.missed > 0 and s.deleted_at is null and s.tenant_id = $1
                          order by s.id limit 50) s),
held as (
  select h.limit_id, count(*) as n from sluice.tasks t join sluice.holds h on h.task_id = t.id and h.claims > 0 and h.claims = t.claims
  where t.state = :state_running and t.tenant_id = $1 and t.gated group by 1)
select statement_timestamp() as now, n.name as tenant, coalesce((
    select json_agg(json_build_array(
      n.name, q.name, q.paused, q.handler, q.enabled, q.disabled_reason, q.scheduled, q.ready, q.running, q.dead, q.oldest, q.dead_lately,
      least(n.max_concurrency, n.granted_max_concurrency), n.granted_max_concurrency, q.worker_silent,
      q.id, q.max_concurrency, q.max_depth, q.paused_at, q.asked_at, coalesce(q.minutes, '[]'),
      coalesce(q.deaths, '[]')) order by q.name collate "C")
    from queues q), '[]')::text as queues, coalesce((
    select json_agg(json_build_array(
      n.name, s.name, s.paused,
      case when s.paused then 0 else greatest(0, coalesce(extract(epoch from statement_timestamp() - s.look_at), 0)) end,
      s.missed, s.next_nominal_at, q.name) order by s.look_at nulls last, s.name)
    from schedules d join sluice.schedules s on s.id = d.id join sluice.queues q on q.id = s.queue_id), '[]')::text as schedules, coalesce((
    select json_agg(json_build_array(b.id, q.name, b.total, b.succeeded, b.dead, b.cancelled, b.sealed, b.created_at) order by b.id desc)
    from (select * from sluice.batches where tenant_id = $1 and completed_at is null order by id desc limit 50) b
    join sluice.queues q on q.id = b.queue_id), '[]')::text as batches, coalesce((
    select json_agg(json_build_array(
      h.name, h.enabled, case when h.breaker is null then null when h.effective_max_concurrency = 0 then 'open' when h.half_open then 'half_open'
                   else 'closed' end,
      least(h.max_concurrency, h.effective_max_concurrency),
      greatest(0, extract(epoch from h.parked_until - statement_timestamp())), coalesce(r.n, 0)) order by h.name collate "C")
    from sluice.handlers h
    left join (select lease_handler_id, sum(n - lapsed) as n from running group by 1) r on r.lease_handler_id = h.id
    where h.tenant_id = $1 and h.deleted_at is null
      and (h.breaker is not null or h.adaptive is not null or h.max_concurrency is not null or not h.enabled or h.parked_until > statement_timestamp())
    ), '[]')::text as handlers, coalesce((
    select json_agg(json_build_array(l.name, l.max_concurrency, coalesce(held.n, 0), l.paused) order by l.name collate "C")
    from sluice.limits l left join held on held.limit_id = l.id where l.tenant_id = $1 and l.kind = 'named'), '[]')::text as limits, coalesce((
    select json_agg(json_build_array(n.name, s.name, s.paused, extract(epoch from statement_timestamp() - f.since), x.last_error, q.name)
      order by s.name collate "C")
    from sluice.sources s join sluice.source_states x on x.source_id = s.id join sluice.queues q on q.id = s.queue_id
    cross join lateral (
      select case when count(*) = count(v.failing_since) then max(v.failing_since) end as since from sluice.source_receivers v join sluice.replicas e on e.id = v.replica_id
      where v.source_id = s.id and e.seen_at > statement_timestamp() - make_interval(secs => $3)) f
    where s.tenant_id = $1 and f.since is not null), '[]')::text as sources, coalesce((
    select json_agg(json_build_array(
      e.id, e.name, e.roles, e.version, e.started_at, e.seen_at, e.draining, e.deaf,
      extract(epoch from statement_timestamp() - e.seen_at), e.connections, e.connections_wanted, e.max_in_flight, e.in_flight)
      order by e.name, e.id)
    from sluice.replicas e where e.seen_at > statement_timestamp() - make_interval(secs => $3)), '[]')::text as replicas,
  (select extract(epoch from statement_timestamp() - min(first_end))::double precision from running) as longest_lapsed,
  (select extract(epoch from statement_timestamp() - min(oldest))::double precision from due) as longest_due,
  case when $4 then (select row_to_json(d) from ({database}) d) end::text as database
from sluice.tenants n where n.id = $1
