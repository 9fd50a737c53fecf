-- Wherever the task is: live and history in one statement, so that a task that ends in between is not missed.
select tenant_id from sluice.tasks where id = $1
union all
select tenant_id from sluice.task_history where id = $1 limit 1
