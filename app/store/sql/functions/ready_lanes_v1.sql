-- The first lanes after one that have ready tasks, plain ones or those of open flows; where the first plain one is in the order of
-- claiming; and whether the lane is open: not paused, and with a handler that is enabled.
-- One index probe for each of them, whatever its depth; lanes without ready tasks cost nothing, nor do flows that are parked.
create function sluice.ready_lanes_v1(p_queue bigint, p_handler bigint, p_limit integer)
returns table (queue_id bigint, handler_id bigint, tenant_id bigint, priority smallint, run_at timestamptz, open boolean)
language plpgsql stable
as $$
#variable_conflict use_column
begin
  return query
    with recursive lanes(queue_id, handler_id, priority, run_at, place) as (
      (select t.queue_id, t.handler_id, t.priority, t.run_at, 1 from sluice.tasks t
       where t.state = :state_ready and t.flow_id is null and (t.queue_id, t.handler_id) > (p_queue, p_handler)
       order by t.queue_id, t.handler_id, t.priority desc, t.run_at, t.id limit 1)
      union all
      select n.queue_id, n.handler_id, n.priority, n.run_at, l.place + 1 from lanes l cross join lateral (
        select t.queue_id, t.handler_id, t.priority, t.run_at from sluice.tasks t
        where t.state = :state_ready and t.flow_id is null and (t.queue_id, t.handler_id) > (l.queue_id, l.handler_id)
        order by t.queue_id, t.handler_id, t.priority desc, t.run_at, t.id limit 1) n
      where l.place < p_limit),
    flows(queue_id, handler_id, place) as (
      (select f.queue_id, f.handler_id, 1 from sluice.flows f
       where f.parked_on is null and not f.plain and (f.queue_id, f.handler_id) > (p_queue, p_handler)
       order by f.queue_id, f.handler_id limit 1)
      union all
      select n.queue_id, n.handler_id, l.place + 1 from flows l cross join lateral (
        select f.queue_id, f.handler_id from sluice.flows f
        where f.parked_on is null and not f.plain and (f.queue_id, f.handler_id) > (l.queue_id, l.handler_id)
        order by f.queue_id, f.handler_id limit 1) n
      where l.place < p_limit)
    select l.queue_id, l.handler_id, q.tenant_id, coalesce(l.priority, cast(0 as smallint)), coalesce(l.run_at, statement_timestamp()),
           not q.paused and coalesce(h.enabled and h.deleted_at is null, false)
    from (select u.queue_id, u.handler_id, max(u.priority) as priority, max(u.run_at) as run_at
          from (select n.queue_id, n.handler_id, n.priority, n.run_at from lanes n
                union all
                select f.queue_id, f.handler_id, null, null from flows f) u
          group by 1, 2) l
    join sluice.queues q on q.id = l.queue_id
    left join sluice.handlers h on h.id = coalesce(nullif(l.handler_id, 0), q.handler_id)
    order by l.queue_id, l.handler_id limit p_limit;
end $$;
