-- The task that an action takes next.
select t.task_id from sluice.actions a cross join lateral (
  select l.task_id from sluice.action_tasks l where l.action_id = a.id and l.task_id > a.acted_to order by l.task_id limit 1) t
where a.id = $1 and a.state = 'running'
