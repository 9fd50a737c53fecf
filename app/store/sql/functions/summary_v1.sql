-- What a callback says of an ended task: the payload of a callback whose body is a summary.
-- The result is JSON if it was stored as JSON, else text, else base64 (result_encoding). Text may end in half a character, where it was
-- cut, or have NUL characters, which Postgres does not know. No result can keep a task from ending. One that is
-- encrypted is left out (result_encoding: encrypted).
create function sluice.summary_v1(p_ended sluice.task_history, p_queue text, p_state text) returns json language plpgsql stable
as $$
declare v_result json; v_encoding text; c_instant constant text := 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"';
begin
  if p_ended.options ? 'sealed' then
    p_ended.result_format := null;
    v_encoding := 'encrypted';
  end if;
  for v_cut in 0 .. case when coalesce(p_ended.result_format, 'base64') = 'base64' then -1 when p_ended.result_truncated then 3 else 0 end loop
    begin
      v_result := case when p_ended.result_format = 'json' and v_cut = 0 then convert_from(p_ended.result, 'UTF8')::json
        else to_json(convert_from(substr(p_ended.result, 1, length(p_ended.result) - v_cut), 'UTF8')) end;
      exit;
    exception when data_exception then  -- try one byte less
    end;
  end loop;
  if v_result is null and p_ended.result_format is not null then
    v_result := to_json(translate(encode(p_ended.result, 'base64'), E'\n', ''));
    v_encoding := 'base64';
  end if;
  return json_build_object(
    'task', p_ended.id, 'queue', p_queue, 'type', p_ended.options -> 'type', 'correlation_id', p_ended.options -> 'correlation_id',
    'state', p_state, 'reason', p_ended.reason, 'attempt', p_ended.attempt, 'last_error', p_ended.last_error,
    'result', v_result, 'result_encoding', v_encoding, 'result_truncated', p_ended.result_truncated,
    'enqueued_at', to_char(p_ended.created_at at time zone 'UTC', c_instant),
    'started_at', to_char(p_ended.last_started_at at time zone 'UTC', c_instant),
    'ended_at', to_char(p_ended.ended_at at time zone 'UTC', c_instant),
    'tags', coalesce(p_ended.options -> 'tags', '[]'));
end $$;
