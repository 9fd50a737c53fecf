-- Take note of tasks that sluice.enqueue has added, each row once, over all replicas: how many of which lane, and when something of it is
-- due next.
with taken as materialized (
  select a.n from sluice.arrivals a order by a.n limit $1 for update skip locked),
gone as (
  delete from sluice.arrivals a where a.n = any(array(select t.n from taken t)) returning a.queue_id, a.handler_id, a.created, a.due_at)
select g.queue_id, g.handler_id, count(*) filter (where g.created) as created, min(g.due_at) as due_at, count(*) as taken
from gone g group by g.queue_id, g.handler_id
