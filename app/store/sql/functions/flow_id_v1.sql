-- The flow of a task: with which others it is admitted or blocked. null: it has neither a key nor limits of its own.
create function sluice.flow_id_v1(p_queue bigint, p_handler bigint, p_options jsonb) returns bigint language sql immutable parallel safe
begin atomic
  select case when p_options ?| array['key', 'limits'] then sluice.hash_v1(
    p_queue::text || ' ' || p_handler::text || ' ' || coalesce((p_options -> 'key')::text, '')
    || coalesce((p_options -> 'limits')::text, '')) end;
end;
