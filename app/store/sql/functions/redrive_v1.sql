-- Revive up to p_limit matching dead tasks of a queue that ended before p_before, in the order of ids after p_after. Returns how
-- many were checked (0: there are no more), the last id, how many were revived, and their lanes. Tasks stay dead if their own
-- handler has been deleted, if an unfinished task has their unique key, or if others are moving them now.
-- The locks are taken before the rows are read, as everywhere; handlers that exist then cannot be deleted until the end.
create function sluice.redrive_v1(
  p_queue bigint, p_reason text, p_type text, p_tag text, p_handlers bigint[], p_correlation text,
  p_from timestamptz, p_to timestamptz, p_before timestamptz, p_after uuid, p_limit integer)
returns table (seen integer, last_id uuid, moved integer, lanes bigint[]) language plpgsql volatile
as $$
declare v_ids uuid[]; v_moved uuid[];
begin
  perform pg_advisory_xact_lock_shared(:lock_handler, s.h::integer)
    from (select l.handler_id as h from sluice.lanes l where l.queue_id = p_queue and l.handler_id <> 0 order by 1) s;
  perform pg_advisory_xact_lock_shared(:lock_queue, p_queue::integer);
  select array_agg(k.id) into v_ids
  from (select t.id from sluice.task_history t
        left join sluice.queues q on q.id = t.queue_id
        where t.queue_id = p_queue and t.state = :state_dead and t.id > p_after and t.kept_until > statement_timestamp()
          and t.ended_at < p_before and (p_reason is null or t.reason = p_reason) and (p_type is null or t.options ->> 'type' = p_type)
          and (p_tag is null or t.options -> 'tags' ? p_tag)
          and (p_correlation is null or t.options ->> 'correlation_id' = p_correlation)
          and (p_handlers is null or coalesce(nullif(t.handler_id, 0), t.lease_handler_id, q.handler_id) = any(p_handlers))
          and (p_from is null or t.ended_at >= p_from) and (p_to is null or t.ended_at < p_to)
        order by t.id limit p_limit) k;
  seen := coalesce(cardinality(v_ids), 0); moved := 0; lanes := '{}';
  if seen > 0 then
    last_id := v_ids[seen];
    select array_agg(l.id) into v_ids
    from (select t.id from sluice.task_history t
          where t.id = any(v_ids) and t.state = :state_dead
            and (t.handler_id = 0 or exists (select from sluice.handlers h where h.id = t.handler_id and h.deleted_at is null))
            and exists (select from sluice.queues q where q.id = p_queue and q.deleted_at is null)
          order by t.id for update of t skip locked) l;
    if v_ids is not null then
      v_moved := sluice.revive_v1(v_ids, clock_timestamp());
      moved := cardinality(v_moved);
      select coalesce(array_agg(distinct t.handler_id), '{}') into lanes from sluice.tasks t where t.id = any(v_moved);
    end if;
  end if;
  return next;
end $$;
