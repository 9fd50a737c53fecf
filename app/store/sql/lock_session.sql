-- A lock that the session holds until it ends; waits for it.
select pg_advisory_lock($1)
