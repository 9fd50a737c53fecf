-- The newest error of each of these tasks.
select t.id, t.last_error from sluice.tasks t where t.id = any($1::uuid[])
union all
select t.id, t.last_error from (select * from sluice.task_history where id = any($1::uuid[]) offset 0) t
