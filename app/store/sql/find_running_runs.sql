-- Those of these runs whose end is not recorded.
select id::text from sluice.schedule_runs where id = any($1::uuid[]) and outcome = 'running'
