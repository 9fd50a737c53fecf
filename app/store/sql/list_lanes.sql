-- The lanes after one, and which of them have something to claim and are not shut: one index probe a lane, whatever their depth.
-- A scalar subquery, and not `exists`: that may be planned as a join over the whole backlog.
select l.queue_id, l.handler_id, q.tenant_id,
  not q.paused and coalesce(h.enabled and h.deleted_at is null, false) and coalesce((
    select true from sluice.tasks t
    where t.queue_id = l.queue_id and t.handler_id = l.handler_id and t.state = :state_ready limit 1), false) as ready
from (select k.* from sluice.lanes k where (k.queue_id, k.handler_id) > ($1, $2) order by k.queue_id, k.handler_id limit $3) l
join sluice.queues q on q.id = l.queue_id
left join sluice.handlers h on h.id = coalesce(nullif(l.handler_id, 0), q.handler_id)
order by l.queue_id, l.handler_id
