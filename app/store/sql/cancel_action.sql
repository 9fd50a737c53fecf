-- End an action early. What it has done stays.
update sluice.actions a set state = 'cancelled', ended_at = clock_timestamp()
where a.tenant_id = $1 and a.id = $2 and a.state = 'running' returning a.id
