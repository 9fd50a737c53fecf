-- The options of a task that was pushed back once more in this attempt (PushedBack in app/domain/options.py).
create function sluice.pushed_back_v1(p_options jsonb, p_attempt integer, p_now timestamptz) returns jsonb language sql stable
begin atomic
  select coalesce(p_options, '{}') || jsonb_build_object('pushed_back', case
    when (p_options -> 'pushed_back' ->> 'attempt')::integer = p_attempt
      then p_options -> 'pushed_back' || jsonb_build_object('times', (p_options -> 'pushed_back' ->> 'times')::integer + 1)
    else jsonb_build_object('since', p_now, 'times', 1, 'attempt', p_attempt) end);
end;
