-- Days that ended an hour ago and are still there, those whose detach was left half done first: one pending detach refuses all
-- others of its table.
select p.parent, c.relname as name, i.inhrelid is not null as attached, coalesce(i.inhdetachpending, false) as pending
from (values ('task_history'), ('attempt_history')) p(parent)
join pg_class c on c.relnamespace = 'sluice'::regnamespace and c.relkind = 'r' and c.relname ~ ('^' || p.parent || '_\d{8}$')
left join pg_inherits i on i.inhrelid = c.oid
where right(c.relname, 8) < to_char((clock_timestamp() - interval '1 hour') at time zone 'UTC', 'YYYYMMDD')
order by coalesce(i.inhdetachpending, false) desc, c.relname
