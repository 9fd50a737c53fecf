-- Put what a window of an action's search has found on its list, unless another replica has done so or it has ended.
with moved as (
  update sluice.actions a set scanned_to = $3::uuid, listed = $4, found = a.found + cardinality($5::uuid[])
  where a.id = $1 and a.state = 'running' and not a.listed and a.scanned_to = $2::uuid returning a.id),
added as (
  insert into sluice.action_tasks (action_id, task_id) select m.id, t.id from moved m, unnest($5::uuid[]) t(id))
select exists (select from moved)
