-- A window of the audit: its newest rows within what an index serves, which of them match the other filters, and the last one searched,
-- where the next window continues.
with seen as materialized (
  select a.at, a.id, {fits} as fits from sluice.audit a where {within} order by a.at desc, a.id desc limit {rows}),
fitting as (select s.at, s.id from seen s where s.fits order by s.at desc, s.id desc limit {limit})
select (select count(*) from seen) as looked_at, l.at, l.id::text,
       array(select f.at from fitting f order by f.at desc, f.id desc) as instants,
       array(select f.id::text from fitting f order by f.at desc, f.id desc) as ids
from (values (true)) v left join lateral (select s.at, s.id from seen s order by s.at, s.id limit 1) l on true
