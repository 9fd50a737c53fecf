-- The handler of a task that has named none for itself.
(select o.handler_id from sluice.queues o where o.id = t.queue_id)
