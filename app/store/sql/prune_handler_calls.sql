-- Seconds that no window reaches any longer.
with old as (
  delete from sluice.handler_calls c
  where c.ctid = any(array(
    select k.ctid from sluice.handler_calls k
    where k.second < floor(extract(epoch from statement_timestamp()))::bigint - $2::integer limit $1))
  returning 1)
select count(*) from old
