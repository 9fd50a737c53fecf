-- Delete up to $1 actions that ended $2 days ago.
with old as (
  select a.id from sluice.actions a
  where a.ended_at < clock_timestamp() - make_interval(days => $2) and a.swept order by a.ended_at limit $1 for update skip locked),
gone as (delete from sluice.actions a using old o where a.id = o.id returning 1)
select count(*) from gone
