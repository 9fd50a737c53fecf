-- A window of the newest tasks of each side. reached: the highest end of the windows that were filled; below it, not every source
-- has been searched.
with seen as materialized ({sides}),
reached as (
  select p.id from (
    select (array_agg(s.id order by s.id))[1] as id from seen s group by s.side, s.part having count(*) >= {each}) p
  order by p.id desc limit 1)
select (select id from reached) as reached,
       array(select s.id from seen s where s.fits and s.id >= coalesce((select id from reached), s.id)
             order by s.id desc limit {limit}) as ids
