-- Objects in the schema that this role may not use, by name. The migrations' version table is not needed at run time, and rows of the
-- audit are only added and read.
select string_agg(name, ', ' order by name) as names, current_user as role
from (
  select c.relname as name from pg_class c
  where c.relnamespace = 'sluice'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
    and c.relname <> 'alembic_version'
    and not (has_schema_privilege(c.relnamespace, 'usage')
             and has_table_privilege(c.oid, 'select') and has_table_privilege(c.oid, 'insert')
             and (c.relname = 'audit' or has_table_privilege(c.oid, 'update') and has_table_privilege(c.oid, 'delete')))
  union all
  select p.proname from pg_proc p
  where p.pronamespace = 'sluice'::regnamespace and not has_function_privilege(p.oid, 'execute')) lacking
