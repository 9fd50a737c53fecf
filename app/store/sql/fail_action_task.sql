-- Take a task off an action's list, because the database refuses to act on it; not if another replica has acted on it, or passed it, by now.
-- The action's row is locked first, as by act_v1.
with held as (
  select a.id from sluice.actions a where a.id = $1 and a.state = 'running' and a.acted_to < $2::uuid for update),
gone as (delete from sluice.action_tasks t using held h where t.action_id = h.id and t.task_id = $2::uuid returning t.task_id)
update sluice.actions a set failed = a.failed + 1, acted_to = g.task_id,
  errors = case when jsonb_array_length(a.errors) < 20
    then a.errors || jsonb_build_array(jsonb_build_object('task', g.task_id, 'why', 'failed')) else a.errors end
from gone g where a.id = $1 returning a.id
