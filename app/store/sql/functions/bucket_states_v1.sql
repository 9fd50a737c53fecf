-- What each of these buckets admits at p_now: room, the tasks that its concurrency has place for (null: any number), and tokens, the
-- units of its rate (null: it has none). A paused one has neither; one with a timer has none until then
-- (its rate is spent, or park_key_v1).
-- held: running tasks, of which there is a hold. A hold counts only while its task is running with that number of claims, so a slot
-- cannot leak; or if it is one of p_taken, which the caller is about to start.
-- Exact only under the tenant's gate, in a statement after it was taken.
create function sluice.bucket_states_v1(p_buckets bigint[], p_limits bigint[], p_now timestamptz, p_taken uuid[])
returns table (bucket_id bigint, limit_id bigint, paused boolean, ordered boolean, max_concurrency integer, held integer, room integer,
               tokens double precision, burst double precision, unit_seconds double precision, tat timestamptz, open_at timestamptz)
language sql stable
begin atomic
  select b.id, b.limit_id, s.paused, l.ordered, s.max_concurrency, c.held,
    case when s.paused or r.open_at > p_now then 0 when s.max_concurrency is not null then greatest(0, s.max_concurrency - c.held) end,
    case when s.unit_seconds is null then null when s.paused or r.open_at > p_now then 0 else
      greatest(0, s.burst - greatest(0, extract(epoch from r.tat - p_now)) / s.unit_seconds) end,
    s.burst, s.unit_seconds, r.tat, r.open_at
  from (select distinct u.id, u.limit_id from unnest(p_buckets, p_limits) u(id, limit_id)) b
  join sluice.limits l on l.id = b.limit_id
  left join sluice.limit_keys k on k.bucket_id = b.id
  left join sluice.rate_clocks r on r.bucket_id = b.id
  cross join lateral (
    select l.paused or coalesce(k.paused, false) as paused,
      case when l.ordered then 1 else coalesce(k.max_concurrency, l.max_concurrency) end as max_concurrency,
      x.period / x.amount as unit_seconds, coalesce(x.burst, greatest(1, 0.1 * x.amount / x.period))::double precision as burst
    from (select case when k.rate_limit is null then l.rate_limit else k.rate_limit end as amount,
                 case when k.rate_limit is null then l.rate_period_seconds else k.rate_period_seconds end as period,
                 case when k.rate_limit is null then l.rate_burst else k.rate_burst end as burst) x) s
  cross join lateral (
    select case when s.max_concurrency is null then 0 else (
      -- not `state = :state_running`, the predicate of an index that statistics believe to be small; and one by one (offset 0), as a
      -- join by id may walk the whole index beside a held snapshot
      select count(*) from sluice.holds h
      cross join lateral (select t.id, t.lease_token, t.claims from sluice.tasks t where t.id = h.task_id offset 0) t
      where h.bucket_id = b.id and (t.lease_token is not null and t.claims = h.claims or t.id = any(p_taken))) end::integer as held) c;
end;
