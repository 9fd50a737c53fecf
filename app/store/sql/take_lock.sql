-- Waits for all holders of the lock, shared or not. The class and the key are two 32-bit integers.
select pg_advisory_xact_lock($1, $2)
