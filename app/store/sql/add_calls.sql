-- Adds a replica's counts of calls to the present second of each handler and period, histograms element by element.
-- Sorted by key, so that two replicas that write the same handlers wait for each other and never deadlock.
insert into sluice.handler_calls as c (handler_id, second, period, calls, failures, pushed_back, found_full, durations)
select i.handler_id, floor(extract(epoch from statement_timestamp()))::bigint, i.period, i.calls, i.failures, i.pushed_back,
       i.found_full, i.durations::bigint[]
from unnest($1::bigint[], $2::bigint[], $3::integer[], $4::integer[], $5::integer[], $6::boolean[], $7::text[])
  i(handler_id, period, calls, failures, pushed_back, found_full, durations)
order by i.handler_id, i.period
on conflict (handler_id, second, period) do update set
  calls = c.calls + excluded.calls, failures = c.failures + excluded.failures, pushed_back = c.pushed_back + excluded.pushed_back,
  found_full = c.found_full or excluded.found_full,
  durations = array(select coalesce(a.n, 0) + coalesce(a.more, 0)
                    from unnest(c.durations, excluded.durations) with ordinality a(n, more, place) order by a.place)
