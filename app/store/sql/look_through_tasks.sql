-- A window of the tasks of each side beyond a position, newest first or oldest first. reached: the nearest end of the windows that
-- were filled; beyond it, not every source has been searched.
with seen as materialized ({sides}),
reached as (
  select p.id from (
    select (array_agg(s.id order by s.id {back}))[1] as id from seen s group by s.side, s.part having count(*) >= {each}) p
  order by p.id {order} limit 1)
select (select id from reached) as reached,
       array(select s.id from seen s where s.fits and s.id {until} coalesce((select id from reached), s.id)
             order by s.id {order} limit {limit}) as ids
