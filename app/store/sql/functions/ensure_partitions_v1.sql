-- Create the daily partitions of both histories for today and each of the next p_days days, at most what any queue may need. Runs
-- as the owner of the tables, so that replicas with a role that may not create tables do not run out of partitions.
-- CREATE TABLE LIKE + ATTACH, never CREATE .. PARTITION OF, which waits behind a single idle reader, with every insert behind it.
create function sluice.ensure_partitions_v1(p_days integer) returns integer language plpgsql volatile security definer
as $$
declare
  v_parent text; v_name text; v_day date; v_made integer := 0;
  v_today date := (clock_timestamp() at time zone 'UTC')::date;
begin
  perform pg_advisory_xact_lock(:lock_make_partitions);
  for v_day in select v_today + d from generate_series(0, least(p_days, 120)) d loop
    foreach v_parent in array array['task_history', 'attempt_history'] loop
      v_name := v_parent || '_' || to_char(v_day, 'YYYYMMDD');
      continue when to_regclass('sluice.' || v_name) is not null;
      execute format('create table sluice.%I (like sluice.%I including all) with (autovacuum_analyze_threshold = 5000)', v_name, v_parent);
      execute format('alter table sluice.%I attach partition sluice.%I for values from (%L) to (%L)', v_parent, v_name,
                     v_day::text || ' 00:00:00+00', (v_day + 1)::text || ' 00:00:00+00');
      v_made := v_made + 1;
    end loop;
  end loop;
  return v_made;
end $$;
