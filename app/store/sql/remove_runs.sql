-- Rows of times without a run, which are written anew in pieces in the same transaction; a run with a task is never removed.
delete from sluice.schedule_runs where id = any($1::uuid[]) and task_id is null
