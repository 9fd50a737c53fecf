-- The handler of a task without one of its own.
(select o.handler_id from sluice.queues o where o.id = t.queue_id)
