-- Waits for a lock that the session then holds until it ends.
select pg_advisory_lock($1)
