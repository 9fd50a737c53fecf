-- How sources fare, over all replicas that live ($2: seconds since they were last seen). One fails while it fails on all of them.
select s.source_id, s.received, s.enqueued, s.duplicates, s.invalid, s.lost, s.last_received_at, s.lag, s.oldest_age_seconds, s.measured_at,
       s.last_error, s.last_error_at, coalesce(r.in_flight, 0)::integer as in_flight, r.failing_since, coalesce(r.names, '{}') as replicas,
       (select count(*) from sluice.source_tasks k join sluice.tasks t on t.id = k.task_id where k.source_id = s.source_id)::integer as outstanding
from sluice.source_states s
left join lateral (
  select sum(v.in_flight) as in_flight, case when count(*) = count(v.failing_since) then max(v.failing_since) end as failing_since, array_agg(p.name order by p.name) as names
  from sluice.source_receivers v join sluice.replicas p on p.id = v.replica_id
  where v.source_id = s.source_id and p.seen_at > clock_timestamp() - make_interval(secs => $2)) r on true
where s.source_id = any($1::bigint[])
