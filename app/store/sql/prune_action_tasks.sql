-- Delete up to $1 rows that an ended action has left: it was cancelled, or had enough.
with rest as (
  select t.action_id, t.task_id from sluice.action_tasks t
  where not exists (select from sluice.actions a where a.id = t.action_id and a.state = 'running') limit $1 for update skip locked),
gone as (delete from sluice.action_tasks t using rest r where t.action_id = r.action_id and t.task_id = r.task_id returning 1)
select count(*) from gone
