-- A lock that the session holds until it ends; tried, never waited for.
select pg_try_advisory_lock($1)
