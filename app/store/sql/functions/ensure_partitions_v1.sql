-- Create the daily partitions of both histories for today and each of the next p_days days, at most what any queue may need, and the
-- monthly ones of the audit for these days and a month more. Runs as the owner of the tables, so that replicas with a role that may not create tables do not run out of partitions.
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
  for v_day in select generate_series(date_trunc('month', v_today), v_today + least(p_days, 120) + interval '1 month', '1 month') loop
    v_name := 'audit_' || to_char(v_day, 'YYYYMM');
    continue when to_regclass('sluice.' || v_name) is not null;
    execute format('create table sluice.%I (like sluice.audit including all)', v_name);
    execute format('create trigger audit_not_emptied before truncate on sluice.%I execute function sluice.refuse_change_v1()', v_name);
    execute format('alter table sluice.audit attach partition sluice.%I for values from (%L) to (%L)', v_name,
                   v_day::text || ' 00:00:00+00', (v_day + interval '1 month')::date::text || ' 00:00:00+00');
    v_made := v_made + 1;
  end loop;
  return v_made;
end $$;
