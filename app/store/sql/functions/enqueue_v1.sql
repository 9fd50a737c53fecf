-- Insert one group of tasks, each with a verdict of its own. Answers the group's receipt:
--   {"at": instant, "verdicts": {"<ordinal from 1>": [verdict, task id?]}, "waiting": {"<queue id>": code}}
-- where an item without a verdict was created. Run again with the same p_group it writes nothing and answers the same.
--
-- p_handlers, p_keys, p_fingerprints, p_options and p_uniques are null where no item of the group has any. A group may join a
-- batch whole: as follow-ups of p_parent under p_root, whose p_shown_keys are unique elsewhere (settle_followups_v1), or else under
-- their own keys, if the batch still takes any: 'batch_sealed' says of all that it does not, and then nothing is written.
-- Order of locks: the group, shared ones of handlers, queues and the batch, the depth of queues that bound it, idempotency keys sorted,
-- unique keys as the caller has sorted them. Whoever inserts a unique key second waits, fails, and runs the group again.
-- The rows are read in statements after the locks, under a newer snapshot: a count taken in the locking statement is too old.
-- 'held': an unfinished task has the unique key; such an item keeps no idempotency key, for it made no task.
-- 'changed': the definition is not the one the caller validated against; 'again': the key expired meanwhile; both are retried.
create function sluice.enqueue_v1(
  p_group uuid, p_ids uuid[], p_queues bigint[], p_versions bigint[], p_handlers bigint[],
  p_payloads bytea[], p_keys text[], p_fingerprints bytea[], p_options text[], p_uniques text[] default null,
  p_batch uuid default null, p_root uuid default null, p_parent uuid default null, p_shown_keys text[] default null)
returns jsonb language plpgsql volatile
as $$
declare
  v_now timestamptz; v_verdicts jsonb := '{}'; v_more jsonb; v_waiting jsonb; v_receipt jsonb; v_bad integer[]; v_queue record;
  v_changed boolean; v_deep boolean; v_dropped boolean := false; v_gone jsonb;
begin
  perform pg_advisory_xact_lock(:lock_group, hashtext(p_group::text));
  select r.verdicts into v_receipt from sluice.receipts r where r.group_id = p_group;
  if found then return v_receipt; end if;
  if p_handlers is not null then
    perform pg_advisory_xact_lock_shared(:lock_handler, s.h::integer)
      from (select distinct h from unnest(p_handlers) h where h <> 0 order by h) s;
  end if;
  perform pg_advisory_xact_lock_shared(:lock_queue, s.q::integer)
    from (select distinct q from unnest(p_queues) q order by q) s;
  if p_batch is not null and p_parent is null then
    perform pg_advisory_xact_lock_shared(:lock_batch, hashtext(p_batch::text));
    if not exists (select from sluice.batches b where b.id = p_batch and not b.sealed and b.cancelled_at is null) then
      return (select jsonb_build_object('at', clock_timestamp(), 'verdicts', jsonb_object_agg(n, '["batch_sealed"]'::jsonb))
              from generate_subscripts(p_ids, 1) n);
    end if;
  end if;

  -- under the shared locks a definition stands still: one look tells what the rest needs
  select count(*) filter (where q.id is null or q.deleted_at is not null or q.version <> i.version) > 0,
         bool_or(q.max_depth is not null),
         jsonb_object_agg(i.queue, case when q.paused then 'queue_paused'
                                        when q.handler_id is null then 'worker'
                                        when not h.enabled then 'handler_disabled' end)
           filter (where q.paused or q.handler_id is null or not h.enabled)
    into v_changed, v_deep, v_waiting
  from (select distinct u.queue, u.version from unnest(p_queues, p_versions) u(queue, version)) i
  left join sluice.queues q on q.id = i.queue
  left join sluice.handlers h on h.id = q.handler_id;
  if v_deep then
    perform pg_advisory_xact_lock(:lock_depth, s.id::integer)
      from (select q.id from sluice.queues q where q.id = any(p_queues) and q.max_depth is not null order by q.id) s;
  end if;
  v_now := clock_timestamp();

  if v_changed or p_handlers is not null then
    select coalesce(jsonb_object_agg(u.n, jsonb_build_array(u.verdict)), '{}') into v_verdicts
    from (
      select i.n, case
          when q.id is null or q.deleted_at is not null or q.version <> i.version then 'changed'
          when i.handler <> 0 and (h.id is null or h.deleted_at is not null) then 'handler_gone'
        end as verdict
      from unnest(p_queues, p_versions, p_handlers) with ordinality i(queue, version, handler, n)
      left join sluice.queues q on q.id = i.queue
      left join sluice.handlers h on h.id = i.handler) u
    where u.verdict is not null;
  end if;

  if p_keys is not null then
    delete from sluice.idempotency_keys k
    using (select d.queue_id, d.key from sluice.idempotency_keys d
           join (select distinct i.queue, i.key from unnest(p_queues, p_keys) i(queue, key) where i.key is not null) w
             on d.queue_id = w.queue and d.key = w.key
           where d.expires_at <= v_now order by d.queue_id, d.key for update of d) x
    where k.queue_id = x.queue_id and k.key = x.key and k.expires_at <= v_now;
    insert into sluice.idempotency_keys (queue_id, key, fingerprint, task_id, expires_at)
    select i.queue, i.key, i.fingerprint, i.id, v_now + make_interval(secs => q.idempotency_seconds)
    from unnest(p_ids, p_queues, p_keys, p_fingerprints) with ordinality i(id, queue, key, fingerprint, n)
    join sluice.queues q on q.id = i.queue
    where i.key is not null and not v_verdicts ? i.n::text
    order by i.queue, i.key, i.n
    on conflict do nothing;
    select coalesce(jsonb_object_agg(i.n, case
        when k.task_id is null then jsonb_build_array('again')
        when k.fingerprint = i.fingerprint then jsonb_build_array('replayed', k.task_id)
        else jsonb_build_array('mismatch') end), '{}')
      into v_more
    from unnest(p_ids, p_queues, p_keys, p_fingerprints) with ordinality i(id, queue, key, fingerprint, n)
    left join sluice.idempotency_keys k on k.queue_id = i.queue and k.key = i.key
    where i.key is not null and not v_verdicts ? i.n::text and k.task_id is distinct from i.id;
    v_verdicts := v_verdicts || v_more;
  end if;

  if p_uniques is not null then
    select coalesce(jsonb_object_agg(i.n, jsonb_build_array('held', i.holder)), '{}') into v_more
    from (
      select w.n, coalesce(t.id, nullif(first_value(w.id) over (partition by w.queue, w.uniq order by w.n), w.id)) as holder
      from unnest(p_ids, p_queues, p_uniques) with ordinality w(id, queue, uniq, n)
      left join sluice.tasks t on t.queue_id = w.queue and t.unique_key = w.uniq
      where w.uniq is not null and not v_verdicts ? w.n::text) i
    where i.holder is not null;
    v_verdicts := v_verdicts || v_more;
    v_dropped := v_more <> '{}';
  end if;

  for v_queue in select q.id, q.max_depth from sluice.queues q
                 where v_deep and q.id = any(p_queues) and q.max_depth is not null order by q.id loop
    select array_agg(i.n) into v_bad
    from (select n, row_number() over (order by n) as place
          from unnest(p_queues) with ordinality u(queue, n)
          where queue = v_queue.id and not v_verdicts ? n::text) i
    where i.place > v_queue.max_depth
      - (select count(*) from sluice.tasks t where t.queue_id = v_queue.id and t.state = :state_ready)
      - (select count(*) from sluice.tasks t where t.queue_id = v_queue.id and t.state = :state_scheduled);
    if v_bad is not null then
      select v_verdicts || jsonb_object_agg(b, '["queue_full"]'::jsonb) into v_verdicts from unnest(v_bad) b;
      v_dropped := true;
    end if;
  end loop;
  if v_dropped and p_keys is not null then
    -- a key must not lead to a task that never was, and who met it in this group is not told of one
    with gone as (
      delete from sluice.idempotency_keys k using unnest(p_ids, p_queues, p_keys) with ordinality i(id, queue, key, n)
      where v_verdicts ? i.n::text and k.queue_id = i.queue and k.key = i.key and k.task_id = i.id
      returning i.queue || ' ' || i.key as key, v_verdicts -> i.n::text -> 0 as verdict)
    select coalesce(jsonb_object_agg(g.key, g.verdict), '{}') into v_gone from gone g;
    select v_verdicts || coalesce(jsonb_object_agg(i.n, jsonb_build_array(
        case v_gone ->> (i.queue || ' ' || i.key) when 'queue_full' then 'queue_full' else 'again' end)), '{}') into v_verdicts
    from unnest(p_queues, p_keys) with ordinality i(queue, key, n)
    where v_gone ? (i.queue || ' ' || i.key) and v_verdicts -> i.n::text ->> 0 in ('replayed', 'mismatch');
  end if;
  if v_dropped and p_uniques is not null then
    select jsonb_object_agg(i.id, true) into v_gone from unnest(p_ids) with ordinality i(id, n)
    where v_verdicts -> i.n::text ->> 0 in ('queue_full', 'again');
    select v_verdicts || coalesce(jsonb_object_agg(i.n, '["again"]'::jsonb), '{}') into v_verdicts
    from unnest(p_uniques) with ordinality i(uniq, n)
    where i.uniq is not null and v_verdicts -> i.n::text ->> 0 = 'held' and v_gone ? (v_verdicts -> i.n::text ->> 1);
  end if;

  insert into sluice.tasks (
    id, tenant_id, queue_id, handler_id, state, priority, run_at, created_at, expires_at, payload, type, headers, tags,
    correlation_id, idempotency_key, idempotency_until, unique_key, retry, max_attempts, timeout_seconds,
    traceparent, tracestate, root_id, parent_id, batch_id)
  select
    i.id, q.tenant_id, i.queue, coalesce(i.handler, 0), case when r.run_at > v_now then :state_scheduled else :state_ready end,
    coalesce((o.o ->> 'priority')::smallint, 0), r.run_at, v_now,
    coalesce((o.o ->> 'expires_at')::timestamptz, v_now + make_interval(secs => (o.o ->> 'ttl_seconds')::double precision)),
    i.payload, o.o ->> 'type', (o.o -> 'headers')::json,
    case when o.o ? 'tags' then array(select jsonb_array_elements_text(o.o -> 'tags')) end,
    o.o ->> 'correlation_id', coalesce(i.key, i.shown_key),
    case when i.key is not null then v_now + make_interval(secs => q.idempotency_seconds) end,
    o.o ->> 'unique_key', (o.o -> 'retry')::json, (o.o -> 'retry' ->> 'max_attempts')::integer,
    (o.o ->> 'timeout_seconds')::double precision, o.o ->> 'traceparent', o.o ->> 'tracestate',
    p_root, p_parent, p_batch
  from unnest(p_ids, p_queues, p_handlers, p_payloads, p_keys, p_options, p_shown_keys)
       with ordinality i(id, queue, handler, payload, key, options, shown_key, n)
  join sluice.queues q on q.id = i.queue
  cross join lateral (select i.options::jsonb as o offset 0) o
  cross join lateral (select greatest((o.o ->> 'run_at')::timestamptz,
      v_now + make_interval(secs => (o.o ->> 'delay_seconds')::double precision), v_now) as run_at offset 0) r
  where not v_verdicts ? i.n::text;

  if p_batch is not null then
    insert into sluice.batch_deltas (tenant_id, batch_id, total)
    select b.tenant_id, b.id, cardinality(p_ids) - (select count(*) from jsonb_object_keys(v_verdicts))
    from sluice.batches b where b.id = p_batch;
  end if;
  if p_handlers is not null then
    insert into sluice.lanes (queue_id, handler_id)
    select distinct i.queue, i.handler from unnest(p_queues, p_handlers) with ordinality i(queue, handler, n)
    where i.handler <> 0 and not v_verdicts ? i.n::text
    order by 1, 2 on conflict do nothing;
  end if;
  v_receipt := jsonb_strip_nulls(jsonb_build_object('at', v_now, 'waiting', v_waiting,
                                                    'verdicts', nullif(v_verdicts, '{}')));
  insert into sluice.receipts (group_id, verdicts) values (p_group, v_receipt);
  return v_receipt;
end $$;
