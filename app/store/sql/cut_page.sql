-- Rows of a page up to a number of bytes, the row that exceeds it included. The size of values stored out of line is known without
-- reading them.
select * from (
  select f.*, sum(coalesce(octet_length(f.payload), 0) + coalesce(octet_length(f.result), 0)
                  + coalesce(octet_length(f.progress::text), 0))
                over (order by f.id desc rows between unbounded preceding and 1 preceding) as bytes_before
  from ({found}) f) s
where coalesce(s.bytes_before, 0) < {bytes} order by s.id desc
