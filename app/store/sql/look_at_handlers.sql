-- The health of these handlers and of up to $2 that are due, with what decides about them: calls of the present period in the window, and all of them,
-- calls of the full seconds that the adaptive limit was not judged by yet (of the last minute at most), and calls under way.
-- One probe in the index of handler_calls per handler; running rows are counted only where they may matter, or with $3.
-- $3: also the durations of all calls in the window. $4: the window of a handler without a breaker, in seconds.
select x.handler_id, h.tenant_id, n.name as tenant, h.name, h.breaker, h.adaptive, h.max_concurrency, h.parked_until,
       x.health, x.look_at, clock_timestamp() as at,
       coalesce(w.calls, 0) as calls, coalesce(w.failures, 0) as failures, coalesce(w.all_calls, 0) as all_calls,
       coalesce(w.all_failures, 0) as all_failures, coalesce(w.all_pushed_back, 0) as all_pushed_back,
       case when $3 or s.calls > 0 then (
         select count(*) from sluice.tasks t
         where t.state = :state_running and t.tenant_id = h.tenant_id and t.lease_handler_id = h.id) else 0 end as running,
       coalesce(s.calls, 0) as new_calls, coalesce(s.pushed_back, 0) as new_pushed_back, coalesce(s.found_full, false) as new_full,
       s.last_second, s.durations as new_durations, w.durations
from (select k.handler_id, k.health, k.look_at from sluice.handler_health k where k.handler_id = any($1::bigint[])
      union
      (select k.handler_id, k.health, k.look_at from sluice.handler_health k where k.look_at <= statement_timestamp()
       order by k.look_at limit $2)) x
join sluice.handlers h on h.id = x.handler_id and h.deleted_at is null
join sluice.tenants n on n.id = h.tenant_id
cross join lateral (select floor(extract(epoch from statement_timestamp()))::bigint as second offset 0) p
left join lateral (
  select (sum(c.calls) filter (where c.period = h.period))::integer as calls,
         (sum(c.failures) filter (where c.period = h.period))::integer as failures,
         sum(c.calls)::integer as all_calls, sum(c.failures)::integer as all_failures, sum(c.pushed_back)::integer as all_pushed_back,
         json_agg(c.durations) filter (where $3) as durations
  from sluice.handler_calls c
  where c.handler_id = h.id
    and c.second > p.second - coalesce((h.breaker ->> 'window_seconds')::integer, $4)) w on true
left join lateral (
  select sum(c.calls)::integer as calls, sum(c.pushed_back)::integer as pushed_back, bool_or(c.found_full) as found_full,
         max(c.second) as last_second, json_agg(c.durations) as durations
  from sluice.handler_calls c
  where h.adaptive is not null and c.handler_id = h.id and c.second < p.second
    and c.second > greatest(p.second - 60, coalesce((x.health ->> 'judged')::bigint, 0))) s on true
order by x.handler_id
