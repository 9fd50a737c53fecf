-- Those of these runs whose end is not written.
select id::text from sluice.schedule_runs where id = any($1::uuid[]) and outcome = 'running'
