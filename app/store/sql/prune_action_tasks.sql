-- Delete up to $1 rows that ended actions have left on their lists, because they were cancelled or had enough; an action of which nothing is
-- left is swept. Returns how many rows were deleted and actions swept: those that have ended since are found by an index of their own.
with ended as (
  select a.id from sluice.actions a where a.ended_at is not null and not a.swept order by a.ended_at limit 100 for update skip locked),
rest as (
  select t.action_id, t.task_id from ended e cross join lateral (
    select l.action_id, l.task_id from sluice.action_tasks l where l.action_id = e.id limit $1) t limit $1),
gone as (delete from sluice.action_tasks t using rest r where t.action_id = r.action_id and t.task_id = r.task_id returning 1),
empty as (
  update sluice.actions a set swept = true from ended e
  where a.id = e.id and not exists (select from sluice.action_tasks t where t.action_id = e.id) returning 1)
select (select count(*) from gone) + (select count(*) from empty)
