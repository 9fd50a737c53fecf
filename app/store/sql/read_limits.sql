-- The limits on sessions of this role in this database, and how many there are, without the asking session itself.
-- An unprivileged role sees only the database and the user of other sessions; background processes have no user.
-- reserved_connections was added in 16. For a superuser only max_connections applies.
with r as (select oid, rolname, rolconnlimit, rolsuper from pg_roles where rolname = current_user),
d as (select oid, datname, datconnlimit from pg_database where datname = current_database()),
session as (
  select a.usesysid = r.oid as own_role, a.datid = d.oid as own_database
  from pg_stat_activity a, r, d where a.usesysid is not null and a.datid is not null and a.pid <> pg_backend_pid())
select r.rolname as role, d.datname as database, r.rolsuper as super, r.rolconnlimit as role_max, d.datconnlimit as database_max,
       current_setting('max_connections')::integer as max_connections,
       current_setting('superuser_reserved_connections')::integer
         + coalesce(current_setting('reserved_connections', true), '0')::integer as reserved,
       (select count(*) from session) as used,
       (select count(*) from session where own_role) as used_by_role,
       (select count(*) from session where own_database) as used_in_database
from r, d
