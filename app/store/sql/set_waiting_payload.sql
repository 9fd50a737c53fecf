-- The schedule's row is locked, so the start still waits.
update sluice.schedule_runs r set payload = $2 where r.id = $1
