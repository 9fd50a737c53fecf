-- The one clock that counts.
select clock_timestamp()
