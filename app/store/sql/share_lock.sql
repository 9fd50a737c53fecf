-- Waits for the exclusive holder of the lock.
select pg_advisory_xact_lock_shared($1, $2)
