-- Sessions of other roles are invisible to an unprivileged one; they are missing here, but never an error.
select current_setting('server_version') as server_version, (select schema_version from sluice.meta) as schema_version,
       pg_database_size(current_database()) as size_bytes, a.connections,
       current_setting('max_connections')::integer as max_connections,
       greatest(a.age, (select max(age(transaction)) from pg_prepared_xacts),
                (select max(greatest(age(xmin), age(catalog_xmin))) from pg_replication_slots)) as oldest_xmin_age_transactions,
       a.seconds as oldest_xmin_age_seconds
from (select count(*) filter (where usesysid is not null and datid is not null) as connections,
             max(age(backend_xmin)) filter (where pid <> pg_backend_pid()) as age,
             extract(epoch from clock_timestamp() - min(xact_start) filter (
               where backend_xmin is not null and pid <> pg_backend_pid()))::double precision as seconds
      from pg_stat_activity) a
