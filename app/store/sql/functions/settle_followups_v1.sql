-- Complete one task and enqueue its follow-up work, in one transaction: p_entries as follow-up tasks, a continuation with p_next as
-- its cursor, and what to enqueue when the batch completes. Returns {"verdict": …}:
--   applied, with "created": {"<queue id>": how many} and "called": what call_back_v1 says, if tasks called back · repeat, stale, unknown
-- as settle_v1 has them · and, with nothing written:
-- changed (a definition has changed since the caller validated) · queue_full, key_full and too_large, with the "queue" whose max_depth,
-- or that of its keys, has no room for the page now, or for a page of this size ever.
-- A follow-up's key is unique per (root, queue, key): the first wins, in this page and in earlier ones. If an unfinished task has a
-- follow-up's unique_key, no task is created and no key stored, unless the follow-up replaces that task.
-- Continuations do not count against max_depth.
-- Order of locks (app/store/numbers.py): shared advisory ones of handlers, queues, limits and the batch, the depth of queues that limit it; then the task's row,
-- and the batch's keys sorted. The inner block is a subtransaction that a refusal rolls back as a whole.
create function sluice.settle_followups_v1(
  p_outcome sluice.outcome_v1, p_entries sluice.entry_v1[], p_next text,
  p_then_queue bigint, p_then_version bigint, p_then_digest bytea, p_then_payload bytea, p_then_sealed_for text,
  p_then_type text)
returns jsonb language plpgsql volatile
as $$
declare
  v_root uuid; v_batch uuid; v_task record; v_verdicts jsonb; v_formed boolean; v_new sluice.entry_v1[]; v_queue text; v_full text; v_created jsonb := '{}';
  v_detail text; v_reason text; v_ids uuid[]; v_now timestamptz;
  v_verdict text; v_called jsonb[];
begin
  select coalesce(t.root_id, t.id), coalesce(t.batch_id, t.id) into v_root, v_batch from sluice.tasks t
  where t.id = p_outcome.task_id;
  if not found then
    return jsonb_build_object('verdict', sluice.record_late_v1(p_outcome));
  end if;
  perform pg_advisory_xact_lock_shared(:lock_handler, s.id::integer)
    from (select distinct e.handler_id as id from unnest(p_entries) e where e.handler_id <> 0 order by 1) s;
  perform pg_advisory_xact_lock_shared(:lock_queue, s.id::integer)
    from (select e.queue_id as id from unnest(p_entries) e union select p_then_queue where p_then_queue is not null
          union select c.called_id from sluice.called_queues_v1(p_entries) c where c.called_id is not null order by 1) s;
  perform pg_advisory_xact_lock_shared(:lock_limits, s.id::integer)
    from (select distinct q.tenant_id as id from unnest(p_entries) e join sluice.queues q on q.id = e.queue_id
          where e.options ? 'limits') s;
  perform pg_advisory_xact_lock_shared(:lock_batch, hashtext(v_batch::text));
  perform pg_advisory_xact_lock(:lock_depth, s.id::integer)
    from (select q.id from sluice.queues q left join sluice.limits l on l.owner_id = q.id and l.kind = 'queue_key'
          where q.id = any(array(select e.queue_id from unnest(p_entries) e))
            and (q.max_depth is not null or l.max_depth is not null) order by q.id) s;
  select * into v_task from sluice.tasks t where t.id = p_outcome.task_id for update;
  v_now := clock_timestamp();
  if not found or v_task.lease_token is distinct from p_outcome.token or v_task.lease_expires_at <= v_now then
    return jsonb_build_object('verdict', sluice.record_late_v1(p_outcome));
  end if;
  if p_then_queue is not null
     and not exists (select from sluice.queues q where q.id = p_then_queue and q.version = p_then_version and q.deleted_at is null) then
    return '{"verdict": "changed"}';
  end if;

  begin
    insert into sluice.batches (id, tenant_id, queue_id, sealed) values (v_batch, v_task.tenant_id, v_task.queue_id, true)
    on conflict do nothing;
    v_formed := found;
    with fresh as (
      insert into sluice.followup_keys (batch_id, root_id, queue_id, key)
      select distinct v_batch, v_root, e.queue_id, e.key from unnest(p_entries) e order by e.queue_id, e.key
      on conflict do nothing
      returning queue_id, key),
    firsts as (
      select distinct on (e.queue_id, e.key) e.ordinality as n, e.queue_id, e.unique_key
      from unnest(p_entries) with ordinality e join fresh f on f.queue_id = e.queue_id and f.key = e.key
      order by e.queue_id, e.key, e.ordinality)
    -- unique keys in the order of enqueues
    select array_agg(p_entries[s.n] order by s.unique_key is not null, s.queue_id, s.unique_key collate "C", s.n) into v_new
    from firsts s;

    if v_new is not null then
      select q.name into v_queue
      from (select e.queue_id, count(*) as n from unnest(v_new) e group by 1) c
      join sluice.queues q on q.id = c.queue_id where c.n > q.max_depth limit 1;
      if found then raise exception using errcode = 'SL001', message = 'too_large', detail = v_queue; end if;
      select q.name into v_queue
      from (select e.queue_id, count(*) as n from unnest(v_new) e where e.options ? 'key' group by e.queue_id, e.options ->> 'key') c
      join sluice.limits l on l.owner_id = c.queue_id and l.kind = 'queue_key'
      join sluice.queues q on q.id = c.queue_id where c.n > l.max_depth limit 1;
      if found then raise exception using errcode = 'SL001', message = 'too_large', detail = v_queue; end if;
      v_verdicts := coalesce(sluice.enqueue_v1(p_outcome.token, v_new, v_batch, v_root, p_outcome.task_id) -> 'verdicts', '{}');
      select q.name, v_verdicts -> e.ordinality::text ->> 0 into v_queue, v_full
      from unnest(v_new) with ordinality e join sluice.queues q on q.id = e.queue_id
      where v_verdicts -> e.ordinality::text ->> 0 in ('queue_full', 'key_full') limit 1;
      if found then raise exception using errcode = 'SL001', message = v_full, detail = v_queue; end if;
      if jsonb_path_exists(v_verdicts, '$.*[0] ? (@ != "held" && @ != "replaced")') then
        raise exception using errcode = 'SL001', message = 'changed', detail = '';
      end if;
      delete from sluice.followup_keys k
      using unnest(v_new) with ordinality e
      where v_verdicts <> '{}' and v_verdicts -> e.ordinality::text ->> 0 = 'held'
        and k.batch_id = v_batch and k.root_id = v_root and k.queue_id = e.queue_id and k.key = e.key;
      select coalesce(jsonb_object_agg(c.queue_id, c.n), '{}') into v_created
      from (select e.queue_id, count(*) as n from unnest(v_new) with ordinality e
            where not v_verdicts ? e.ordinality::text group by 1) c;
    end if;

    if p_next is not null then
      insert into sluice.tasks (
        id, tenant_id, queue_id, handler_id, state, priority, run_at, created_at, expires_at, payload, options, max_attempts,
        root_id, parent_id, batch_id)
      values (
        sluice.uuid7_v1(), v_task.tenant_id, v_task.queue_id, v_task.handler_id, :state_ready, v_task.priority, v_now, v_now,
        v_task.expires_at, v_task.payload, coalesce(v_task.options, '{}') - 'pushed_back' || jsonb_build_object('cursor', p_next)
          || case when v_task.options ? 'sealed' then
               jsonb_build_object('sealed_for', coalesce(v_task.options ->> 'sealed_for', v_task.id::text)) else '{}' end,
        v_task.max_attempts, v_root, p_outcome.task_id, v_batch);
    end if;
    if p_then_queue is not null then
      insert into sluice.batch_completions (batch_id, digest, queue_id, payload, sealed_for, type)
      values (v_batch, p_then_digest, p_then_queue, p_then_payload, p_then_sealed_for, p_then_type)
      on conflict do nothing;
    end if;
    if v_formed or p_next is not null then
      insert into sluice.batch_deltas (tenant_id, batch_id, total)
      values (v_task.tenant_id, v_batch, v_formed::integer + (p_next is not null)::integer);
    end if;
    update sluice.tasks t set batch_id = v_batch where t.id = p_outcome.task_id and t.batch_id is null;
    select min(s.verdict) filter (where s.token is not null), array_agg(s.verdict::jsonb) filter (where s.token is null)
      into v_verdict, v_called
    from sluice.settle_v1(array[p_outcome]) s;
    if v_verdict <> 'applied' then raise exception using errcode = 'SL001', message = 'late', detail = ''; end if;
    select b.cancel_reason into v_reason from sluice.batches b where b.id = v_batch and b.cancelled_at is not null;
    if found then
      select array_agg(t.id) into v_ids from sluice.tasks t where t.batch_id = v_batch and t.parent_id = p_outcome.task_id;
      if v_ids is not null then
        v_called := v_called || sluice.bury_v1(v_ids, :state_cancelled::smallint, v_reason, array_fill(v_now, array[cardinality(v_ids)]));
      end if;
    end if;
    return jsonb_build_object('verdict', 'applied', 'created', v_created, 'called', coalesce(to_jsonb(v_called), '[]'));
  exception when sqlstate 'SL001' then
    get stacked diagnostics v_detail = pg_exception_detail;
    if sqlerrm = 'late' then
      return jsonb_build_object('verdict', sluice.record_late_v1(p_outcome));
    end if;
    return jsonb_build_object('verdict', sqlerrm, 'queue', v_detail);
  end;
end $$;
