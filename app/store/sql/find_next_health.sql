-- Seconds until time changes the health of a handler; null if it will not.
select extract(epoch from min(x.look_at) - clock_timestamp())::double precision from sluice.handler_health x
where x.look_at is not null
