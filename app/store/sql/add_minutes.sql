-- Adds a replica's counts to each queue's current minute, histograms element by element.
-- Sorted by key, so that two replicas that flush the same queues wait for each other and never deadlock.
insert into sluice.queue_minutes as m (queue_id, minute, enqueued, started, succeeded, dead, cancelled, retried, wait, run)
select i.queue_id, date_trunc('minute', statement_timestamp()), i.enqueued, i.started, i.succeeded, i.dead, i.cancelled,
       i.retried, i.wait::bigint[], i.run::bigint[]
from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
            $8::text[], $9::text[])
  i(queue_id, enqueued, started, succeeded, dead, cancelled, retried, wait, run)
order by i.queue_id
on conflict (queue_id, minute) do update set
  enqueued = m.enqueued + excluded.enqueued, started = m.started + excluded.started,
  succeeded = m.succeeded + excluded.succeeded, dead = m.dead + excluded.dead, cancelled = m.cancelled + excluded.cancelled,
  retried = m.retried + excluded.retried,
  wait = array(select coalesce(a.n, 0) + coalesce(a.more, 0) from unnest(m.wait, excluded.wait) with ordinality a(n, more, place)
               order by a.place),
  run = array(select coalesce(a.n, 0) + coalesce(a.more, 0) from unnest(m.run, excluded.run) with ordinality a(n, more, place)
              order by a.place)
