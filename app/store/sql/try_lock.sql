-- A lock until the transaction ends, under a name; tried, never waited for.
select pg_try_advisory_xact_lock($1, hashtext($2))
