-- Only the owner of the tables may detach and drop days.
select pg_has_role(relowner, 'usage') from pg_class where oid = 'sluice.task_history'::regclass
