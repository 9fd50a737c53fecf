-- When each of these tasks was leased first, of those that have been leased before.
select a.task_id, min(a.started_at) as started_at from sluice.attempts a where a.task_id = any($1::uuid[]) group by a.task_id
