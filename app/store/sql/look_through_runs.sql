-- A window of one schedule's ledger: its newest rows within the range, which of them match, and the last one searched, where the
-- next window continues.
with seen as materialized (
  select r.id, r.nominal_at, {fits} as fits from sluice.schedule_runs r where {within}
  order by r.nominal_at desc, r.id desc limit {rows}),
fitting as (select s.id, s.nominal_at from seen s where s.fits order by s.nominal_at desc, s.id desc limit {limit})
select (select count(*) from seen) as looked_at, l.nominal_at, l.id::text,
       array(select f.nominal_at from fitting f order by f.nominal_at desc, f.id desc) as instants,
       array(select f.id::text from fitting f order by f.nominal_at desc, f.id desc) as ids
from (values (true)) v left join lateral (select s.nominal_at, s.id from seen s order by s.nominal_at, s.id limit 1) l on true
