-- Sums the minutes from $1 to before $2, which are over, by tenant: whole minutes, so that doing it again changes nothing.
-- Each queue's rows are found by its key (`offset 0`); there is no index by minute, which every flush would write.
with found as materialized (
  select q.tenant_id, m.* from sluice.queues q cross join lateral (
    select * from sluice.queue_minutes m where m.queue_id = q.id and m.minute >= $1 and m.minute < $2 offset 0) m),
waits as (
  select tenant_id, minute, array_agg(n order by place) as n
  from (select f.tenant_id, f.minute, u.place, sum(u.n)::bigint as n
        from found f cross join unnest(f.wait) with ordinality u(n, place) group by 1, 2, 3) w group by 1, 2),
runs as (
  select tenant_id, minute, array_agg(n order by place) as n
  from (select f.tenant_id, f.minute, u.place, sum(u.n)::bigint as n
        from found f cross join unnest(f.run) with ordinality u(n, place) group by 1, 2, 3) r group by 1, 2),
counts as (
  select tenant_id, minute, sum(enqueued) as enqueued, sum(started) as started, sum(succeeded) as succeeded, sum(dead) as dead,
         sum(cancelled) as cancelled, sum(retried) as retried, sum(ready) as ready, sum(running) as running
  from found group by 1, 2)
insert into sluice.tenant_minutes (tenant_id, minute, enqueued, started, succeeded, dead, cancelled, retried, wait, run, ready, running)
select c.tenant_id, c.minute, c.enqueued, c.started, c.succeeded, c.dead, c.cancelled, c.retried, coalesce(w.n, '{}'),
       coalesce(r.n, '{}'), c.ready, c.running
from counts c
left join waits w on w.tenant_id = c.tenant_id and w.minute = c.minute
left join runs r on r.tenant_id = c.tenant_id and r.minute = c.minute
order by 1, 2
on conflict (tenant_id, minute) do update set
  enqueued = excluded.enqueued, started = excluded.started, succeeded = excluded.succeeded, dead = excluded.dead,
  cancelled = excluded.cancelled, retried = excluded.retried, wait = excluded.wait, run = excluded.run, ready = excluded.ready,
  running = excluded.running
