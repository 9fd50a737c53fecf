-- Insert one group of tasks, with a verdict per task. Returns the group's receipt:
--   {"at": instant, "verdicts": {"<ordinal from 1>": [verdict, task id?]}, "waiting": {"<queue id>": code}}
-- where an item without a verdict was created. Run again with the same p_group, it writes nothing and returns the same.
--
-- An entry's handler_id is the task's own handler, 0 for the queue's. A whole group may join a batch: as follow-ups of p_parent
-- under p_root, whose keys are shown and are unique elsewhere (settle_followups_v1), or under their own keys, if the batch still
-- takes tasks. Otherwise every verdict is 'batch_sealed', and nothing is written.
-- Order of locks (app/store/numbers.py): the group, shared ones of handlers, queues, limits and the batch, the depth of queues that limit it, idempotency keys
-- sorted, unique keys as sorted by the caller. The second inserter of a unique key waits, fails, and runs its group again.
-- The rows are read in statements after the locks, under a newer snapshot: a count in the locking statement would be outdated.
-- 'key_full': as many tasks wait with its key as the queue lets. A limit that goes makes tasks that name it 'changed'.
-- 'held': an unfinished task has the unique key; such an item stores no idempotency key, because it created no task.
-- 'replaced': that task was waiting, and has what the item says instead (on_duplicate); the item's idempotency key refers to it.
-- Fingerprints of equal requests have an equal first half, or an equal second one: what sluice.enqueue writes has only that.
-- Fails if a key is taken by a transaction that goes on for half a second.
-- 'changed': the definition has changed since the caller validated; 'again': the key has expired since, or another task has taken
-- the unique key; both are retried.
create function sluice.enqueue_v1(
  p_group uuid, p_entries sluice.entry_v1[], p_batch uuid default null, p_root uuid default null, p_parent uuid default null)
returns jsonb language plpgsql volatile
as $$
declare
  v_now timestamptz; v_verdicts jsonb := '{}'; v_more jsonb; v_waiting jsonb; v_receipt jsonb; v_bad integer[]; v_queue record;
  v_queues bigint[]; v_handled boolean; v_keyed boolean; v_unique boolean; v_replaces boolean; v_calls boolean;
  v_changed boolean; v_deep boolean; v_limited boolean; v_by_key boolean; v_dropped boolean := false; v_gone jsonb; v_held uuid[];
  v_called bigint[];
begin
  perform pg_advisory_xact_lock(:lock_group, hashtext(p_group::text));
  select r.verdicts into v_receipt from sluice.receipts r where r.group_id = p_group;
  if found then return v_receipt; end if;
  select array_agg(distinct e.queue_id), bool_or(e.handler_id <> 0), p_parent is null and bool_or(e.key is not null),
         bool_or(e.unique_key is not null), bool_or(e.on_duplicate is not null), bool_or(e.options ? 'limits'),
         bool_or(e.options ? 'key'), bool_or(e.options ? 'callbacks')
    into v_queues, v_handled, v_keyed, v_unique, v_replaces, v_limited, v_by_key, v_calls
  from unnest(p_entries) e;
  if v_handled then
    perform pg_advisory_xact_lock_shared(:lock_handler, s.id::integer)
      from (select distinct e.handler_id as id from unnest(p_entries) e where e.handler_id <> 0 order by 1) s;
  end if;
  if v_calls then
    v_called := array(select c.called_id from sluice.called_queues_v1(p_entries) c where c.called_id is not null);
  end if;
  perform pg_advisory_xact_lock_shared(:lock_queue, s.id::integer) from (select id from unnest(v_queues || v_called) id order by id) s;
  if v_limited then
    perform pg_advisory_xact_lock_shared(:lock_limits, s.id::integer)
      from (select distinct q.tenant_id as id from sluice.queues q where q.id = any(v_queues)) s;
  end if;
  if p_batch is not null and p_parent is null then
    perform pg_advisory_xact_lock_shared(:lock_batch, hashtext(p_batch::text));
    if not exists (select from sluice.batches b where b.id = p_batch and not b.sealed and b.cancelled_at is null) then
      return (select jsonb_build_object('at', clock_timestamp(), 'verdicts', jsonb_object_agg(n, '["batch_sealed"]'::jsonb))
              from generate_subscripts(p_entries, 1) n);
    end if;
  end if;

  -- definitions cannot change under the shared locks, so one read is enough
  select count(*) filter (where q.id is null or q.deleted_at is not null or q.version <> e.queue_version) > 0,
         bool_or(q.max_depth is not null),
         jsonb_object_agg(e.queue_id, case when q.paused then 'queue_paused'
                                        when q.handler_id is null then 'worker'
                                        when not h.enabled then 'handler_disabled' end)
           filter (where q.paused or q.handler_id is null or not h.enabled)
    into v_changed, v_deep, v_waiting
  from (select distinct u.queue_id, u.queue_version from unnest(p_entries) u) e
  left join sluice.queues q on q.id = e.queue_id
  left join sluice.handlers h on h.id = q.handler_id;
  v_by_key := v_by_key and exists (
    select from sluice.limits l where l.owner_id = any(v_queues) and l.kind = 'queue_key' and l.max_depth is not null);
  if v_deep or v_by_key then
    perform pg_advisory_xact_lock(:lock_depth, s.id::integer)
      from (select q.id from sluice.queues q
            left join sluice.limits l on l.owner_id = q.id and l.kind = 'queue_key'
            where q.id = any(v_queues) and (q.max_depth is not null or l.max_depth is not null) order by q.id) s;
  end if;
  v_now := clock_timestamp();

  if v_changed or v_handled or v_limited then
    select coalesce(jsonb_object_agg(u.n, jsonb_build_array(u.verdict)), '{}') into v_verdicts
    from (
      select e.ordinality as n, case
          when q.id is null or q.deleted_at is not null or q.version <> e.queue_version then 'changed'
          when e.handler_id <> 0 and (h.id is null or h.deleted_at is not null) then 'handler_gone'
          when e.options ? 'limits' and exists (
            select from jsonb_array_elements(e.options -> 'limits') u
            where not exists (select from sluice.limits l where l.tenant_id = q.tenant_id and l.name = u ->> 'name')) then 'changed'
        end as verdict
      from unnest(p_entries) with ordinality e
      left join sluice.queues q on q.id = e.queue_id
      left join sluice.handlers h on h.id = e.handler_id) u
    where u.verdict is not null;
  end if;

  if v_calls then
    -- a queue that a callback names has been deleted since the caller looked, or is another one now
    select v_verdicts || coalesce(jsonb_object_agg(c.n, '["changed"]'::jsonb), '{}') into v_verdicts
    from (select distinct c.n from sluice.called_queues_v1(p_entries) c where c.called_id is null or c.called_id <> all(v_called)) c;
  end if;

  if v_keyed or v_unique then
    -- a transaction of others that has taken one of these keys with sluice.enqueue may last (held_keys_v1)
    perform set_config('lock_timeout', '500', true);
  end if;
  if v_keyed then
    delete from sluice.idempotency_keys k
    using (select d.queue_id, d.key from sluice.idempotency_keys d
           join (select distinct e.queue_id, e.key from unnest(p_entries) e where e.key is not null) w
             on d.queue_id = w.queue_id and d.key = w.key
           where d.expires_at <= v_now order by d.queue_id, d.key for update of d) x
    where k.queue_id = x.queue_id and k.key = x.key and k.expires_at <= v_now;
    insert into sluice.idempotency_keys (queue_id, key, fingerprint, task_id, expires_at)
    select e.queue_id, e.key, e.fingerprint, e.task_id, v_now + make_interval(secs => coalesce(e.key_seconds, q.idempotency_seconds))
    from unnest(p_entries) with ordinality e
    join sluice.queues q on q.id = e.queue_id
    where e.key is not null and not v_verdicts ? e.ordinality::text
    order by e.queue_id, e.key, e.ordinality
    on conflict do nothing;
    select coalesce(jsonb_object_agg(e.ordinality, case
        when k.task_id is null then jsonb_build_array('again')
        when substr(k.fingerprint, 1, 32) = substr(e.fingerprint, 1, 32) or substr(k.fingerprint, 33) = nullif(substr(e.fingerprint, 33), '')
          then jsonb_build_array('replayed', k.task_id)
        else jsonb_build_array('mismatch') end), '{}')
      into v_more
    from unnest(p_entries) with ordinality e
    left join sluice.idempotency_keys k on k.queue_id = e.queue_id and k.key = e.key
    where e.key is not null and not v_verdicts ? e.ordinality::text and k.task_id is distinct from e.task_id;
    v_verdicts := v_verdicts || v_more;
  end if;

  if v_replaces then
    -- a claim may take one of them before it is locked, or it may end: the next statement reads what became of them
    select array_agg(l.id) into v_held
    from (select t.id from sluice.tasks t
          where t.id = any(array(select h.id from unnest(p_entries) e
                                 join sluice.tasks h on h.queue_id = e.queue_id and h.unique_key = e.unique_key
                                 where e.on_duplicate is not null))
          order by t.id for update) l;
  end if;
  if v_unique then
    select coalesce(jsonb_object_agg(i.n, jsonb_build_array(i.verdict, i.holder)), '{}') into v_more
    from (
      select e.ordinality as n,
             case when e.on_duplicate is null or t.state = :state_running then 'held'
                  when t.id is null or t.id = any(v_held) then 'replaced' else 'again' end as verdict,
             coalesce(t.id, nullif(first_value(e.task_id) over (partition by e.queue_id, e.unique_key order by e.ordinality),
                                   e.task_id)) as holder
      from unnest(p_entries) with ordinality e
      left join sluice.tasks t on t.queue_id = e.queue_id and t.unique_key = e.unique_key
      where e.unique_key is not null and not v_verdicts ? e.ordinality::text) i
    where i.holder is not null;
    v_verdicts := v_verdicts || v_more;
    v_dropped := v_more <> '{}';
  end if;

  for v_queue in select q.id, q.max_depth from sluice.queues q
                 where v_deep and q.id = any(v_queues) and q.max_depth is not null order by q.id loop
    select array_agg(i.n) into v_bad
    from (select e.ordinality as n, row_number() over (order by e.ordinality) as place
          from unnest(p_entries) with ordinality e
          where e.queue_id = v_queue.id and not v_verdicts ? e.ordinality::text) i
    where i.place > v_queue.max_depth
      - (select count(*) from sluice.tasks t where t.queue_id = v_queue.id and t.state = :state_ready and t.flow_id is null)
      - (select count(*) from sluice.tasks t where t.queue_id = v_queue.id and t.state = :state_ready and t.flow_id is not null)
      - (select count(*) from sluice.tasks t where t.queue_id = v_queue.id and t.state = :state_scheduled);
    if v_bad is not null then
      select v_verdicts || jsonb_object_agg(b, '["queue_full"]'::jsonb) into v_verdicts from unnest(v_bad) b;
      v_dropped := true;
    end if;
  end loop;
  for v_queue in select l.owner_id as id, l.max_depth from sluice.limits l
                 where v_by_key and l.owner_id = any(v_queues) and l.kind = 'queue_key' and l.max_depth is not null
                 order by l.owner_id loop
    -- one that replaces a task of another key takes a place of its own key, too
    with items as materialized (
      select e.ordinality as n, e.options ->> 'key' as name,
             row_number() over (partition by e.options ->> 'key' order by e.ordinality) as place
      from unnest(p_entries) with ordinality e
      where e.queue_id = v_queue.id and e.options ? 'key' and (not v_verdicts ? e.ordinality::text
        or v_verdicts -> e.ordinality::text ->> 0 = 'replaced' and not exists (
          select from sluice.tasks t
          where t.id = (v_verdicts -> e.ordinality::text ->> 1)::uuid and t.options ->> 'key' = e.options ->> 'key'))),
    waiting as materialized (
      select k.name, (
        select count(*) from (
          select from sluice.tasks t
          where t.queue_id = v_queue.id and t.options ->> 'key' = k.name and t.flow_id is not null and t.claims >= 0
            and t.state <> :state_running
          limit v_queue.max_depth) w) as n
      from (select distinct i.name from items i) k)
    select array_agg(i.n) into v_bad from items i join waiting w on w.name = i.name where i.place > v_queue.max_depth - w.n;
    if v_bad is not null then
      select v_verdicts || jsonb_object_agg(b, '["key_full"]'::jsonb) into v_verdicts from unnest(v_bad) b;
      v_dropped := true;
    end if;
  end loop;
  if v_dropped and v_unique then
    select jsonb_object_agg(e.task_id, true) into v_gone from unnest(p_entries) with ordinality e
    where v_verdicts -> e.ordinality::text ->> 0 in ('queue_full', 'key_full', 'again');
    select v_verdicts || coalesce(jsonb_object_agg(e.ordinality, '["again"]'::jsonb), '{}') into v_verdicts
    from unnest(p_entries) with ordinality e
    where e.unique_key is not null and v_verdicts -> e.ordinality::text ->> 0 in ('held', 'replaced')
      and v_gone ? (v_verdicts -> e.ordinality::text ->> 1);
  end if;
  if v_dropped and v_keyed then
    -- a key must not refer to a task that was never created, and duplicates of it in this group must not be answered with one
    with gone as (
      delete from sluice.idempotency_keys k using unnest(p_entries) with ordinality e
      where v_verdicts ? e.ordinality::text and v_verdicts -> e.ordinality::text ->> 0 <> 'replaced'
        and k.queue_id = e.queue_id and k.key = e.key and k.task_id = e.task_id
      returning e.queue_id || ' ' || e.key as key, v_verdicts -> e.ordinality::text -> 0 as verdict)
    select coalesce(jsonb_object_agg(g.key, g.verdict), '{}') into v_gone from gone g;
    select v_verdicts || coalesce(jsonb_object_agg(e.ordinality, jsonb_build_array(
        case v_gone ->> (e.queue_id || ' ' || e.key) when 'queue_full' then 'queue_full' when 'key_full' then 'key_full'
          else 'again' end)), '{}') into v_verdicts
    from unnest(p_entries) with ordinality e
    where v_gone ? (e.queue_id || ' ' || e.key) and v_verdicts -> e.ordinality::text ->> 0 in ('replayed', 'mismatch');
  end if;

  insert into sluice.tasks (
    id, tenant_id, queue_id, handler_id, state, priority, run_at, created_at, expires_at, payload, options, idempotency_key,
    idempotency_until, unique_key, max_attempts, root_id, parent_id, batch_id)
  select
    e.task_id, q.tenant_id, e.queue_id, e.handler_id, case when r.run_at > v_now then :state_scheduled else :state_ready end,
    e.priority, r.run_at, v_now, coalesce(e.expires_at, v_now + make_interval(secs => e.ttl_seconds)), e.payload, e.options, e.key,
    case when v_keyed and e.key is not null then v_now + make_interval(secs => coalesce(e.key_seconds, q.idempotency_seconds)) end,
    e.unique_key, e.max_attempts, p_root, p_parent, p_batch
  from unnest(p_entries) with ordinality e
  join sluice.queues q on q.id = e.queue_id
  cross join lateral (
    select greatest(e.run_at, v_now + make_interval(secs => e.delay_seconds), v_now) as run_at offset 0) r
  where not v_verdicts ? e.ordinality::text;

  if v_replaces then v_verdicts := sluice.replace_held_v1(p_entries, v_verdicts, v_now, v_keyed); end if;
  if p_batch is not null then
    insert into sluice.batch_deltas (tenant_id, batch_id, total)
    select b.tenant_id, b.id, cardinality(p_entries) - (select count(*) from jsonb_object_keys(v_verdicts))
    from sluice.batches b where b.id = p_batch;
  end if;
  if v_handled then
    insert into sluice.lanes (queue_id, handler_id)
    select distinct e.queue_id, e.handler_id from unnest(p_entries) with ordinality e
    where e.handler_id <> 0 and coalesce(v_verdicts -> e.ordinality::text ->> 0, 'replaced') = 'replaced'
    order by 1, 2 on conflict do nothing;
  end if;
  if v_calls then
    insert into sluice.callback_uses (queue_id, by_queue_id)
    select distinct c.called_id, c.queue_id from sluice.called_queues_v1(p_entries) c
    where coalesce(v_verdicts -> c.n::text ->> 0, 'replaced') = 'replaced' and c.called_id <> c.queue_id
    order by 1, 2 on conflict do nothing;
  end if;
  if v_keyed or v_unique then perform set_config('lock_timeout', '0', true); end if;
  v_receipt := jsonb_strip_nulls(jsonb_build_object('at', v_now, 'waiting', v_waiting,
                                                    'verdicts', nullif(v_verdicts, '{}')));
  insert into sluice.receipts (group_id, verdicts) values (p_group, v_receipt);
  return v_receipt;
end $$;
