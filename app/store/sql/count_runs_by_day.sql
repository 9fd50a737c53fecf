-- What became of a schedule's nominal times, by day of UTC and outcome. A row of many times counts for the day on which it begins.
-- At most $3 rows are read, the newest first: a schedule of every second has millions.
select (r.nominal_at at time zone 'UTC')::date as day, r.outcome, sum(r.count)::bigint as times
from (select nominal_at, outcome, count from sluice.schedule_runs
      where schedule_id = $1 and nominal_at >= $2 order by nominal_at desc, id desc limit $3) r
group by 1, 2 order by 1, 2
