-- Which of these pull queues have something to claim.
-- A scalar subquery, and not `exists`: that may be planned as a join over the whole backlog.
select q from unnest($1::bigint[]) q
where (select true from sluice.tasks t
       where t.queue_id = q and t.handler_id = 0 and t.state = :state_ready and t.flow_id is null limit 1)
  or (select true from sluice.flows f where f.queue_id = q and f.handler_id = 0 and f.parked_on is null and not f.plain limit 1)
  or exists (select from sluice.flow_signals g where g.tenant_id = (select tenant_id from sluice.queues where id = q))
