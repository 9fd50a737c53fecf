-- Partitions that are not kept any longer and are still there: days of history that ended an hour ago, and months of the audit that
-- ended $1 days ago. Those whose detach was left half done come first: one pending detach refuses all others of its table.
select p.parent, c.relname as name, i.inhrelid is not null as attached, coalesce(i.inhdetachpending, false) as pending
from (select clock_timestamp() at time zone 'UTC' - interval '1 hour' as now) t
cross join lateral (values ('task_history', '\d{8}', to_char(t.now, 'YYYYMMDD')), ('attempt_history', '\d{8}', to_char(t.now, 'YYYYMMDD')),
                           ('audit', '\d{6}', to_char(t.now - make_interval(days => $1), 'YYYYMM'))) p(parent, digits, first_kept)
join pg_class c on c.relnamespace = 'sluice'::regnamespace and c.relkind = 'r' and c.relname ~ ('^' || p.parent || '_' || p.digits || '$')
left join pg_inherits i on i.inhrelid = c.oid
where substring(c.relname from p.digits || '$') < p.first_kept
order by coalesce(i.inhdetachpending, false) desc, c.relname
