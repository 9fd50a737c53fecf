-- Only one row of times without a run can reach into a span: the newest that begins before it.
select l.nominal_at from sluice.schedule_runs l
where l.schedule_id = $1 and not l.extra and l.nominal_at <= {instant} order by l.nominal_at desc limit 1
