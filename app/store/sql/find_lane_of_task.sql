-- Of a live task: the queue, and the handler it has named for itself (0: none).
select queue_id, handler_id from sluice.tasks where id = $1
