-- Removes rows of times without a run, whose parts are written again in the same transaction. Runs with a task are never removed.
delete from sluice.schedule_runs where id = any($1::uuid[]) and task_id is null
