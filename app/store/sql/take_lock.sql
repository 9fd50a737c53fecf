-- Waits for all who hold the lock, shared or not. A class and a key are two 32-bit integers.
select pg_advisory_xact_lock($1, $2)
