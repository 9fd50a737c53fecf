-- What is taken of these limits ($2) of tenant $1 now: one row for each of the first $4 holders of each, or one without a task if
-- there is none. With $3, by key: of the keys that are held, waited for or overridden, up to $7 after the key $6, in byte order; with $5
-- that key alone, whatever it is. $8: only keys without room (full), or only those that something waits for (waiting).
-- Running tasks are read from their own rows, so that nothing is shown as held that is not running.
with holders as (
  select u.limit_id, case when $3 then u.bucket_key end as bucket_key, t.id, q.name as queue, t.options ->> 'key' as key,
         t.last_started_at as started_at
  from sluice.tasks t
  join sluice.queues q on q.id = t.queue_id
  left join sluice.handlers h on h.id = t.lease_handler_id
  cross join lateral {taken_by_task} u
  where t.state = :state_running and t.tenant_id = $1 and t.gated and (not $3 or u.bucket_key is not null)),
waiting as (
  select f.parked_limit as limit_id, u.bucket_key, count(*) as n
  from sluice.flows f
  join sluice.queues q on q.id = f.queue_id
  left join sluice.handlers h on h.id = coalesce(nullif(f.handler_id, 0), q.handler_id)
  -- the key of a flow is worked out only if it is asked for: there may be a hundred thousand of them
  left join lateral (select x.bucket_key from {taken_by_flow} x where $3 and x.limit_id = f.parked_limit) u on true
  where f.tenant_id = $1 and f.parked_on is not null and f.parked_limit = any($2) and (not $3 or u.bucket_key is not null)
  group by 1, 2),
ranked as (
  select o.*, count(*) over (partition by o.limit_id, o.bucket_key) as holding,
         row_number() over (partition by o.limit_id, o.bucket_key order by o.started_at, o.id) as place
  from holders o),
entries as (
  select limit_id, bucket_key from holders
  union select limit_id, bucket_key from waiting
  union select k.limit_id, k.key from sluice.limit_keys k where $3 and k.limit_id = any($2)
  union select i.id, $5::text from unnest($2::bigint[]) i(id) where not $3 or $5::text is not null),
picked as (
  select e.limit_id, e.bucket_key, coalesce(w.n, 0) as waiting_keys, s.*
  from (select * from entries where ($5::text is null or bucket_key = $5) and ($6::text is null or bucket_key collate "C" > $6)
        order by limit_id, bucket_key collate "C") e
  left join waiting w on w.limit_id = e.limit_id and w.bucket_key is not distinct from e.bucket_key
  cross join lateral (
    select b.max_concurrency as effective_max_concurrency, b.paused, b.room, b.tokens, b.burst, b.unit_seconds, b.open_at
    from sluice.bucket_states_v1(
      array[sluice.bucket_v1(e.limit_id, e.bucket_key)], array[e.limit_id], statement_timestamp(), '{}') b) s
  where case $8::text when 'full' then s.paused or s.room = 0 or s.tokens < 1 when 'waiting' then w.n > 0 else true end
  limit $7)
select p.*, coalesce(r.holding, 0) as holding, r.id, r.queue, r.key, r.started_at, statement_timestamp() as now
from picked p
left join ranked r on r.limit_id = p.limit_id and r.bucket_key is not distinct from p.bucket_key and r.place <= $4
order by p.limit_id, p.bucket_key collate "C", r.place
