-- Handle the outcome of a token that no longer settles anything. An attempt that ended as lease_expired or cancelled, or whose
-- lease has expired without being reaped yet, is rewritten to stale with the handler's answer. Anything else under the token is a
-- repeat, including a hold that continues. A transaction of others that has the task's row is waited for half a second: the outcomes of
-- other tasks are in the same group, so this one is then not recorded.
create function sluice.record_late_v1(p_late sluice.outcome_v1) returns text language plpgsql volatile
as $$
declare v_outcome text; v_where text; v_kept timestamptz; v_number integer; v_held boolean; v_written boolean;
  v_timeout text := current_setting('lock_timeout');
begin
  -- An attempt may move (claim, end, retry) between any two of these statements, so whatever is not found, or no longer there
  -- when it is written, is looked up again.
  for v_try in 1..5 loop
    select t.last_outcome, 'task', t.last_outcome = 'held' and t.lease_token = p_late.token and t.lease_expires_at > clock_timestamp()
      into v_outcome, v_where, v_held
    from sluice.tasks t where t.id = p_late.task_id and t.last_token = p_late.token;
    if not found then
      select a.outcome, 'attempt', a.number into v_outcome, v_where, v_number
      from sluice.attempts a where a.task_id = p_late.task_id and a.token = p_late.token;
    end if;
    if not found then
      select t.last_outcome, 'history', t.kept_until into v_outcome, v_where, v_kept
      from sluice.task_history t where t.id = p_late.task_id and t.last_token = p_late.token;
    end if;
    if not found then
      select a.outcome, 'attempt history', a.kept_until, a.number into v_outcome, v_where, v_kept, v_number
      from sluice.attempt_history a where a.task_id = p_late.task_id and a.token = p_late.token;
    end if;
    continue when not found;
    if v_held then return 'repeat'; end if;
    if v_outcome = 'stale' then return 'stale'; end if;
    if coalesce(v_outcome, 'lease_expired') not in ('lease_expired', 'cancelled', 'held') then return 'repeat'; end if;
    if v_where = 'task' then
      begin
        perform set_config('lock_timeout', '500', true);
        update sluice.tasks t set last_outcome = 'stale', last_status = p_late.status, last_message = p_late.message,
          last_excerpt = p_late.excerpt, last_ended_at = clock_timestamp() where t.id = p_late.task_id and t.last_token = p_late.token;
        v_written := found;  -- perform sets it too
        perform set_config('lock_timeout', v_timeout, true);
      exception when lock_not_available then
        return 'stale';  -- and the time-out is what it was
      end;
      if v_written then return 'stale'; end if;
      continue;
    elsif v_where = 'attempt' then
      update sluice.attempts a set outcome = 'stale', status = p_late.status, message = p_late.message,
        excerpt = p_late.excerpt
      where a.task_id = p_late.task_id and a.number = v_number;
    elsif v_where = 'history' then
      update sluice.task_history t set last_outcome = 'stale', last_status = p_late.status, last_message = p_late.message,
        last_excerpt = p_late.excerpt where t.id = p_late.task_id and t.kept_until = v_kept;
    else
      update sluice.attempt_history a set outcome = 'stale', status = p_late.status, message = p_late.message,
        excerpt = p_late.excerpt
      where a.task_id = p_late.task_id and a.number = v_number and a.kept_until = v_kept;
    end if;
    if found then return 'stale'; end if;
  end loop;
  return 'unknown';
end $$;
