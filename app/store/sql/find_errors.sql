-- The newest failures of a queue's {table} since $2, before a position ($3, $4), by the text of their error; and in each row how many
-- were looked at, and the last position, where to go on.
with seen as materialized (
  select t.id, t.last_error, t.{at} as at from sluice.{table} t
  where t.queue_id = $1 and {which} and (t.{at}, t.id) < ($3::timestamptz, $4::uuid) and t.{at} >= $2
  order by t.{at} desc, t.id desc limit $5),
last as (select s.at, s.id from seen s order by s.at, s.id limit 1)
select s.last_error as error, count(*) as count, min(s.at) as first_at, max(s.at) as latest_at,
       (array_agg(s.id order by s.at desc, s.id desc))[1] as task_id, (select count(*) from seen) as seen,
       (select l.at from last l) as last_at, (select l.id from last l) as last_id
from seen s group by s.last_error
