-- Days from today on that both histories have without a gap, and days that have passed and are still there.
select coalesce(min(d) - 1, $1) as ahead,
       (select count(distinct right(c.relname, 8)) from pg_class c
        where c.relnamespace = 'sluice'::regnamespace and c.relkind = 'r' and c.relname ~ '^(task|attempt)_history_\d{8}$'
          and right(c.relname, 8) < to_char(t.today, 'YYYYMMDD')) as left_over
from (select (clock_timestamp() at time zone 'UTC')::date as today) t
left join generate_series(0, $1::integer) d
  on to_regclass('sluice.task_history_' || to_char(t.today + d, 'YYYYMMDD')) is null
  or to_regclass('sluice.attempt_history_' || to_char(t.today + d, 'YYYYMMDD')) is null
group by t.today
