-- Delete up to $1 rows that ended actions have left on their lists, because they were cancelled or had enough; an action of which nothing is
-- left is swept. Returns how many rows were deleted and actions swept: those that have ended since are found by an index of their own.
-- Lists are read in the order of their index, and rows deleted by their place: whether statistics know of a long list or not, the planner
-- would otherwise read all lists to find these few rows, or that there are none.
with ended as (
  select a.id from sluice.actions a where a.ended_at is not null and not a.swept order by a.ended_at limit 100 for update skip locked),
rest as (
  select t.place from ended e cross join lateral (
    select l.ctid as place from sluice.action_tasks l where l.action_id = e.id order by l.task_id limit $1) t limit $1),
gone as (delete from sluice.action_tasks t where t.ctid = any(array(select r.place from rest r)) returning 1),
empty as (
  update sluice.actions a set swept = true from ended e
  where a.id = e.id
    and (select t.task_id from sluice.action_tasks t where t.action_id = e.id order by t.task_id limit 1) is null returning 1)
select (select count(*) from gone) + (select count(*) from empty)
