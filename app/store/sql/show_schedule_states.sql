-- What decisions about schedules depend on: each with its open runs and its newest ledger row. `now` and everything compared with
-- it come from one statement; version and seq tell, when a decision is written, whether all of it is still current.
select s.id, s.tenant_id, n.name as tenant, s.name, s.version, s.seq, s.paused, s.deleted_at is not null as deleted,
  s.next_nominal_at, s.runs as runs_made, s.failures, s.queue_id, s.handler_id, clock_timestamp() as now,
  o.running, o.catching_up, o.waiting,
  case when l.task_id is null and l.outcome <> 'waiting' and l.nominal_at > s.updated_at then l.id::text end as newest_id,
  l.outcome as newest_outcome, l.nominal_until as newest_until
from sluice.schedules s join sluice.tenants n on n.id = s.tenant_id
cross join lateral (
  select count(*) filter (where r.outcome = 'running') as running,
         count(*) filter (where r.outcome = 'running' and r.cause = 'catch_up') as catching_up,
         count(*) filter (where r.outcome = 'waiting') as waiting
  from sluice.schedule_runs r where r.schedule_id = s.id and r.outcome in ('running', 'waiting')) o
left join lateral (
  select r.id, r.outcome, r.task_id, r.nominal_at, r.nominal_until from sluice.schedule_runs r
  where r.schedule_id = s.id and not r.extra order by r.nominal_at desc, r.id desc limit 1) l on true
where s.id = any($1::bigint[])
