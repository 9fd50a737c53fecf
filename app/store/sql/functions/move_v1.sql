-- Send tasks that wait, locked by the caller, to queue p_to; null: to the queue whose task each of them was called back for, as messages
-- of a dead-letter queue were. Each goes on there as a new task with the same content, and ends here as cancelled, superseded. Returns
-- null if none of them could go, or {"moved": [ids as given], "called": [what call_back_v1 says]}, which says of the new tasks, too,
-- where they are. Those whose queue is unknown or gone stay.
-- The new ones are a microsecond apart, so that an ordered key keeps its order. What they carried as callbacks is forgotten: whoever
-- moves tasks begins a new chain. Locks the queues after the rows, as call_back_v1 does.
create function sluice.move_v1(p_ids uuid[], p_to bigint) returns jsonb language plpgsql volatile
as $$
declare v_ids uuid[]; v_to bigint[]; v_now timestamptz; v_moved uuid[]; v_queues jsonb; v_called jsonb;
begin
  select array_agg(s.id order by s.created_at, s.id), array_agg(s.queue_id order by s.created_at, s.id) into v_ids, v_to
  from (select t.id, t.created_at, coalesce(p_to, h.queue_id) as queue_id
        from sluice.tasks t left join lateral (
          select e.queue_id from sluice.task_history e where p_to is null and e.id = t.parent_id and e.tenant_id = t.tenant_id limit 1) h on true
        where t.id = any(p_ids)) s
  where s.queue_id is not null;
  if v_ids is null then return null; end if;
  perform pg_advisory_xact_lock_shared(:lock_queue, s.id::integer)
  from (select distinct c.id from unnest(v_to) c(id) order by 1) s;
  v_now := clock_timestamp();
  with going as materialized (
    select t, q.id as to_id, q.sqs, e.place
    from unnest(v_ids, v_to) with ordinality e(id, queue_id, place)
    join sluice.tasks t on t.id = e.id
    join sluice.queues q on q.id = e.queue_id and q.tenant_id = t.tenant_id and q.deleted_at is null and q.id <> t.queue_id),
  sent as (
    insert into sluice.tasks (id, tenant_id, queue_id, state, priority, run_at, created_at, expires_at, payload, options, max_attempts,
                              parent_id)
    select sluice.uuid7_v1(), (g.t).tenant_id, g.to_id, :state_ready, (g.t).priority, at.now, at.now,
      case when g.sqs is not null
        then v_now + make_interval(secs => coalesce((g.sqs ->> 'message_retention_period')::integer, 345600)) end,
      (g.t).payload,
      nullif(jsonb_strip_nulls((coalesce((g.t).options, '{}') - 'callback_depth') #- '{message,origin}' || jsonb_build_object(
        'sealed_for', case when (g.t).options ? 'sealed' then coalesce((g.t).options ->> 'sealed_for', (g.t).id::text) end)), '{}'),
      (g.t).max_attempts, (g.t).id
    from going g cross join lateral (
      select v_now - make_interval(secs => (cardinality(v_ids) - g.place) / 1e6::double precision) as now) at
    returning queue_id, parent_id)
  select array_agg(s.parent_id order by s.parent_id),
         (select jsonb_object_agg(c.queue_id, c.n) from (select queue_id, count(*) as n from sent group by 1) c)
    into v_moved, v_queues from sent s;
  if v_moved is null then return null; end if;
  v_called := sluice.bury_v1(v_moved, :state_cancelled::smallint, 'superseded', array_fill(v_now, array[cardinality(v_moved)]));
  return jsonb_build_object(
    'moved', to_jsonb(v_moved), 'called', jsonb_build_array(jsonb_build_object('queues', v_queues))
      || case when v_called is null then '[]' else jsonb_build_array(v_called) end);
end $$;
