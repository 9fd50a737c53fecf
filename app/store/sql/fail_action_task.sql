-- Take the next task off an action's list, because the database refuses to act on it.
with next as (
  select a.id, t.task_id from sluice.actions a
  join lateral (select l.task_id from sluice.action_tasks l where l.action_id = a.id and l.task_id > a.acted_to
                order by l.task_id limit 1) t on true
  where a.id = $1 and a.state = 'running' for update of a),
gone as (delete from sluice.action_tasks t using next n where t.action_id = n.id and t.task_id = n.task_id)
update sluice.actions a set failed = a.failed + 1, acted_to = n.task_id,
  errors = case when jsonb_array_length(a.errors) < 20
    then a.errors || jsonb_build_array(jsonb_build_object('task', n.task_id, 'why', 'failed')) else a.errors end
from next n where a.id = n.id returning a.id
