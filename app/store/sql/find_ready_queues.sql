-- Which of these pull queues have something to claim.
-- A scalar subquery, and not `exists`: that may be planned as a join over the whole backlog.
select q from unnest($1::bigint[]) q
where (select true from sluice.tasks t where t.queue_id = q and t.handler_id = 0 and t.state = :state_ready limit 1)
