-- Revive up to p_limit dead tasks of a batch that ended before p_before, in the order of ids after p_after. Returns {"seen": how
-- many were checked (fewer than p_limit: there are no more), "last_id", "moved", "lanes": [[queue id, handler id]]}. Tasks stay
-- dead if their queue or own handler has been deleted, if an unfinished task has their unique key, or if others are moving them
-- now. Queues and handlers are locked after a first look, and only tasks of those are moved.
create function sluice.retry_batch_v1(p_tenant bigint, p_batch uuid, p_before timestamptz, p_after uuid, p_limit integer)
returns jsonb language plpgsql volatile
as $$
declare v_ids uuid[]; v_queues bigint[]; v_handlers bigint[]; v_seen integer; v_last uuid; v_moved uuid[] := '{}'; v_lanes jsonb;
begin
  select array_agg(k.id order by k.id), array_agg(distinct k.queue_id), array_agg(distinct k.handler_id)
    into v_ids, v_queues, v_handlers
  from (select t.id, t.queue_id, t.handler_id from sluice.task_history t
        where t.batch_id = p_batch and t.id > p_after and t.state = :state_dead and t.tenant_id = p_tenant
          and t.kept_until > statement_timestamp() and t.ended_at < p_before
        order by t.id limit p_limit) k;
  v_seen := coalesce(cardinality(v_ids), 0);
  if v_seen > 0 then
    v_last := v_ids[v_seen];
    perform pg_advisory_xact_lock_shared(:lock_handler, s.h::integer)
      from (select h from unnest(v_handlers) h where h <> 0 order by h) s;
    perform pg_advisory_xact_lock_shared(:lock_queue, s.q::integer) from (select q from unnest(v_queues) q order by q) s;
    select array_agg(l.id) into v_ids
    from (select t.id from sluice.task_history t
          where t.id = any(v_ids) and t.state = :state_dead and t.handler_id = any(v_handlers)
            and (t.handler_id = 0 or exists (select from sluice.handlers h where h.id = t.handler_id and h.deleted_at is null))
            and exists (select from sluice.queues q where q.id = t.queue_id and q.deleted_at is null)
          order by t.id for update of t skip locked) l;
    if v_ids is not null then
      v_moved := sluice.revive_v1(v_ids, clock_timestamp());
      select jsonb_agg(jsonb_build_array(d.queue_id, d.handler_id)) into v_lanes
      from (select distinct t.queue_id, t.handler_id from sluice.tasks t where t.id = any(v_moved)) d;
    end if;
  end if;
  return jsonb_build_object('seen', v_seen, 'last_id', v_last, 'moved', cardinality(v_moved), 'lanes', coalesce(v_lanes, '[]'));
end $$;
