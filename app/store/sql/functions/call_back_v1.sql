-- Enqueue the callbacks of tasks that have just ended, in the transaction that ended them: one task each, so exactly once per end. The
-- rows are given as (id, kept_until); ended_v1 has decided which callback is meant. Returns null, or
--   {"queues": {"<queue id>": how many}, "left_out": [{"tenant", "task", "queue", "callback_queue", "state", "reason"}]}
-- reason: chain (a chain of callbacks that long is taken for a circle), queue_gone (deleted since the task ended before, and was retried).
-- The idempotency key says what the task is about, but is not reserved: a task that is redriven and dies again calls back again.
-- With the whole payload, from or to a queue that SQS clients made, the message goes on: its key, what it carries, and as `origin` its id,
-- when it was sent and how often it was received (domain/messages.py). It is kept as long as the queue keeps messages, since it was
-- sent; in a FIFO queue, or if it could not expire before and so may be older than that, from now on.
-- Neither max_depth nor payload_schema of the queue counts: the end of a task cannot be refused.
-- Takes the shared locks of the queues although rows are locked already: otherwise a queue could be deleted while a callback to it is not
-- committed yet. Only changes of a queue take that lock exclusively, and they wait for no row of a task, save for runs that limits hold
-- back for the first time (limits_changed_v1).
create function sluice.call_back_v1(p_ids uuid[], p_kept_until timestamptz[]) returns jsonb language plpgsql volatile
as $$
declare
  c_longest_chain constant integer := 8;  -- domain/callbacks.py has it too
  v_now timestamptz; v_queues jsonb; v_left_out jsonb;
begin
  perform pg_advisory_xact_lock_shared(:lock_queue, s.id::integer)
  from (select distinct c.id
        from unnest(p_ids, p_kept_until) e(id, kept_until)
        join sluice.task_history h on h.id = e.id and h.kept_until = e.kept_until
        join sluice.queues c on c.tenant_id = h.tenant_id and c.name = h.callback ->> 'queue' and c.deleted_at is null
        order by 1) s;
  v_now := clock_timestamp();
  -- in a statement after the locks
  with ended as materialized (
    select h, q.name as queue, c.id as called_id, c.name as called, c.sqs, q.sqs is not null or c.sqs is not null as by_sqs, coalesce((h.options ->> 'callback_depth')::integer, 0) + 1 as depth,
           case h.state when :state_succeeded then 'succeeded' when :state_dead then 'dead' else 'cancelled' end as state
    from unnest(p_ids, p_kept_until) e(id, kept_until)
    join sluice.task_history h on h.id = e.id and h.kept_until = e.kept_until
    join sluice.queues q on q.id = h.queue_id
    left join sluice.queues c on c.tenant_id = h.tenant_id and c.name = h.callback ->> 'queue' and c.deleted_at is null),
  called as (
    insert into sluice.tasks (id, tenant_id, queue_id, state, priority, run_at, created_at, expires_at, payload, options, idempotency_key,
                              parent_id)
    select sluice.uuid7_v1(), (e.h).tenant_id, e.called_id, :state_ready, 0, v_now, v_now,
      case when m.origin is not null and e.sqs is not null
        then case when right(e.called, 5) = '.fifo' or (e.h).expires_at is null then v_now else to_timestamp((m.origin ->> 'sent_ms')::bigint / 1e3::double precision) end
          + make_interval(secs => coalesce((e.sqs ->> 'message_retention_period')::integer, 345600)) end,
      case when b.whole then (e.h).payload else convert_to(sluice.summary_v1(e.h, e.queue, e.state)::text, 'UTF8') end,
      jsonb_strip_nulls(jsonb_build_object(
        'type', coalesce(nullif((e.h).callback -> 'type', 'null'), case when b.whole then (e.h).options -> 'type' end),
        'headers', case when b.whole then (e.h).options -> 'headers' end,
        'content_type', case when b.whole then (e.h).options -> 'content_type' end,
        'binary', case when b.whole then (e.h).options -> 'binary' end,
        'sealed', case when b.whole then (e.h).options -> 'sealed' end,
        'sealed_for', case when b.whole and (e.h).options ? 'sealed' then coalesce((e.h).options ->> 'sealed_for', (e.h).id::text) end,
        'target', nullif((e.h).callback -> 'target', 'null'),
        'correlation_id', (e.h).options -> 'correlation_id',
        'traceparent', (e.h).options -> 'traceparent', 'tracestate', (e.h).options -> 'tracestate',
        'key', case when m.origin is not null then (e.h).options -> 'key' end,
        'message', case when m.origin is not null
          then coalesce((e.h).options -> 'message', '{}') || jsonb_build_object('origin', m.origin) end,
        'callback_depth', e.depth)),
      'callback:' || (e.h).id || ':' || e.state, (e.h).id
    from ended e cross join lateral (select (e.h).callback ->> 'body' = 'payload' as whole) b
    cross join lateral (
      select case when b.whole and e.by_sqs then jsonb_build_object(
        'id', coalesce(o.origin -> 'id', to_jsonb((e.h).id)),
        'sent_ms', coalesce(o.origin -> 'sent_ms', to_jsonb(floor(extract(epoch from (e.h).created_at) * 1000)::bigint)),
        'received', coalesce((o.origin ->> 'received')::integer, 0) + (e.h).attempt,
        'queue', e.queue) end as origin
      from (select (e.h).options -> 'message' -> 'origin' as origin) o) m
    where e.called_id is not null and e.depth <= c_longest_chain
    returning queue_id)
  select (select jsonb_object_agg(c.queue_id, c.n) from (select queue_id, count(*) as n from called group by 1) c),
         (select jsonb_agg(jsonb_build_object(
            'tenant', n.name, 'task', (e.h).id, 'queue', e.queue, 'callback_queue', (e.h).callback ->> 'queue', 'state', e.state,
            'reason', case when e.called_id is null then 'queue_gone' else 'chain' end))
          from ended e join sluice.tenants n on n.id = (e.h).tenant_id
          where e.called_id is null or e.depth > c_longest_chain)
    into v_queues, v_left_out;
  return jsonb_strip_nulls(jsonb_build_object('queues', v_queues, 'left_out', v_left_out));
end $$;
