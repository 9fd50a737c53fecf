-- Whether an idempotency key of a queue is in force.
select 1 from sluice.idempotency_keys where queue_id = $1 and key = $2 and expires_at > clock_timestamp()
