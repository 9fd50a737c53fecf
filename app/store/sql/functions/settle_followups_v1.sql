-- Complete one task and enqueue what follows from it, in one transaction: follow-up tasks, a continuation with p_next as its
-- cursor, and what is to be enqueued once the batch has completed. Answers {"verdict": …}:
--   applied, with "created": {"<queue id>": how many} · repeat, stale, unknown as settle_v1 has them · and, with nothing written:
--   changed (a definition is not the one the caller validated against) · queue_full and too_large, with the "queue": its max_depth
--   has no room for the page now, or for a page of this size ever.
-- A follow-up's key is unique by (root, queue, key): the first wins, here and in earlier pages; one whose unique_key an unfinished
-- task has made no task, and keeps no key. Continuations do not count against max_depth.
-- Order of locks: shared advisory ones of handlers, queues and the batch, the depth of queues that bound it; then the task's row,
-- the batch's keys sorted. The inner block is a subtransaction that a refusal undoes whole.
create function sluice.settle_followups_v1(
  p_id uuid, p_token uuid, p_status integer, p_excerpt text, p_result bytea, p_format text, p_truncated boolean, p_trace text,
  p_next text, p_ids uuid[], p_queues bigint[], p_versions bigint[], p_handlers bigint[], p_payloads bytea[], p_keys text[],
  p_options text[], p_uniques text[], p_then_queue bigint, p_then_version bigint, p_then_payload bytea)
returns jsonb language plpgsql volatile
as $$
declare
  v_root uuid; v_batch uuid; v_task record; v_verdicts jsonb; v_formed boolean; v_new integer[]; v_queue text; v_created jsonb := '{}';
  v_detail text; v_reason text; v_ids uuid[]; v_now timestamptz;
begin
  select coalesce(t.root_id, t.id), coalesce(t.batch_id, t.id) into v_root, v_batch from sluice.tasks t where t.id = p_id;
  if not found then
    return jsonb_build_object('verdict', sluice.record_late_v1(p_id, p_token, p_status, null, p_excerpt));
  end if;
  perform pg_advisory_xact_lock_shared(:lock_handler, s.h::integer)
    from (select distinct h from unnest(p_handlers) h where h <> 0 order by h) s;
  perform pg_advisory_xact_lock_shared(:lock_queue, s.q::integer)
    from (select distinct q from unnest(p_queues || p_then_queue) q where q is not null order by q) s;
  perform pg_advisory_xact_lock_shared(:lock_batch, hashtext(v_batch::text));
  perform pg_advisory_xact_lock(:lock_depth, s.id::integer)
    from (select q.id from sluice.queues q where q.id = any(p_queues) and q.max_depth is not null order by q.id) s;
  select * into v_task from sluice.tasks t where t.id = p_id for update;
  v_now := clock_timestamp();
  if not found or v_task.lease_token is distinct from p_token or v_task.lease_expires_at <= v_now then
    return jsonb_build_object('verdict', sluice.record_late_v1(p_id, p_token, p_status, null, p_excerpt));
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
      select distinct v_batch, v_root, i.queue, i.key from unnest(p_queues, p_keys) i(queue, key) order by i.queue, i.key
      on conflict do nothing
      returning queue_id, key)
    -- unique keys as enqueues insert them
    select array_agg(s.n order by s.uniq is not null, s.queue, s.uniq collate "C", s.n) into v_new
    from (select distinct on (i.queue, i.key) i.n::integer as n, i.queue, u.uniq
          from unnest(p_queues, p_keys) with ordinality i(queue, key, n)
          join fresh f on f.queue_id = i.queue and f.key = i.key
          left join unnest(p_uniques) with ordinality u(uniq, n) on u.n = i.n
          order by i.queue, i.key, i.n) s;

    if v_new is not null then
      select q.name into v_queue
      from (select p_queues[w.n] as queue, count(*) as n from unnest(v_new) w(n) group by 1) c
      join sluice.queues q on q.id = c.queue where c.n > q.max_depth limit 1;
      if found then raise exception using errcode = 'SL001', message = 'too_large', detail = v_queue; end if;
      select sluice.enqueue_v1(
          p_token, array_agg(i.id), array_agg(i.queue), array_agg(i.version),
          case when p_handlers is not null then array_agg(i.handler) end, array_agg(i.payload), null, null,
          case when p_options is not null then array_agg(i.options) end, case when p_uniques is not null then array_agg(i.uniq) end,
          v_batch, v_root, p_id, array_agg(i.key)) -> 'verdicts'
        into v_verdicts
      from (select i.* from unnest(v_new) with ordinality w(n, place)
            join unnest(p_ids, p_queues, p_versions, p_handlers, p_payloads, p_keys, p_options, p_uniques)
              with ordinality i(id, queue, version, handler, payload, key, options, uniq, n) on i.n = w.n
            order by w.place) i;
      v_verdicts := coalesce(v_verdicts, '{}');
      select q.name into v_queue
      from (select p_queues[v_new[v.key::integer]] as id from jsonb_each(v_verdicts) v where v.value ->> 0 = 'queue_full' limit 1) f
      join sluice.queues q on q.id = f.id;
      if found then raise exception using errcode = 'SL001', message = 'queue_full', detail = v_queue; end if;
      if jsonb_path_exists(v_verdicts, '$.*[0] ? (@ != "held")') then
        raise exception using errcode = 'SL001', message = 'changed', detail = '';
      end if;
      delete from sluice.followup_keys k
      using (select i.queue, i.key from (select v_new[v.key::integer] as n from jsonb_each(v_verdicts) v) h
             join unnest(p_queues, p_keys) with ordinality i(queue, key, n) on i.n = h.n) i
      where v_verdicts <> '{}' and k.batch_id = v_batch and k.root_id = v_root and k.queue_id = i.queue and k.key = i.key;
      select coalesce(jsonb_object_agg(c.queue, c.n), '{}') into v_created
      from (select p_queues[w.n] as queue, count(*) as n from unnest(v_new) with ordinality w(n, place)
            where not v_verdicts ? w.place::text group by 1) c;
    end if;

    if p_next is not null then
      insert into sluice.tasks (
        id, tenant_id, queue_id, handler_id, state, priority, run_at, created_at, expires_at, payload, type, headers, tags,
        correlation_id, retry, max_attempts, timeout_seconds, traceparent, tracestate, root_id, parent_id, batch_id, cursor,
        schedule, scheduled_for, schedule_timezone)
      values (
        sluice.uuid7_v1(), v_task.tenant_id, v_task.queue_id, v_task.handler_id, :state_ready, v_task.priority, v_now, v_now,
        v_task.expires_at, v_task.payload, v_task.type, v_task.headers, v_task.tags, v_task.correlation_id, v_task.retry,
        v_task.max_attempts, v_task.timeout_seconds, v_task.traceparent, v_task.tracestate, v_root, p_id, v_batch, p_next,
        v_task.schedule, v_task.scheduled_for, v_task.schedule_timezone);
    end if;
    if p_then_queue is not null then
      insert into sluice.batch_completions (batch_id, digest, queue_id, payload)
      values (v_batch, sha256(int8send(p_then_queue) || p_then_payload), p_then_queue, p_then_payload)
      on conflict do nothing;
    end if;
    if v_formed or p_next is not null then
      insert into sluice.batch_deltas (tenant_id, batch_id, total)
      values (v_task.tenant_id, v_batch, v_formed::integer + (p_next is not null)::integer);
    end if;
    update sluice.tasks t set batch_id = v_batch where t.id = p_id and t.batch_id is null;
    perform 1 from sluice.settle_v1(
      array[p_id], array[p_token], array[:kind_succeeded::smallint], array['succeeded'], array[null::text], array[0::double precision],
      array[p_status], array[null::text], array[p_excerpt], array[p_result], array[p_format], array[p_truncated], array[p_trace]) s
    where s.verdict = 'applied';
    if not found then raise exception using errcode = 'SL001', message = 'late', detail = ''; end if;
    select b.cancel_reason into v_reason from sluice.batches b where b.id = v_batch and b.cancelled_at is not null;
    if found then
      select array_agg(t.id) into v_ids from sluice.tasks t where t.batch_id = v_batch and t.parent_id = p_id;
      if v_ids is not null then
        perform sluice.bury_v1(v_ids, :state_cancelled::smallint, v_reason, array_fill(v_now, array[cardinality(v_ids)]));
      end if;
    end if;
    return jsonb_build_object('verdict', 'applied', 'created', v_created);
  exception when sqlstate 'SL001' then
    get stacked diagnostics v_detail = pg_exception_detail;
    if sqlerrm = 'late' then
      return jsonb_build_object('verdict', sluice.record_late_v1(p_id, p_token, p_status, null, p_excerpt));
    end if;
    return jsonb_build_object('verdict', sqlerrm, 'queue', v_detail);
  end;
end $$;
