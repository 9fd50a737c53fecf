-- Write how much waits at a source ($1): how many messages ($2), and the age of the oldest in seconds ($3). By itself, because the next
-- round comes only after a receive, and what was measured is old by then.
update sluice.source_states set lag = $2, oldest_age_seconds = $3, measured_at = clock_timestamp() where source_id = $1
