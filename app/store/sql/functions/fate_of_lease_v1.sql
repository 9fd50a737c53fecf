-- What happened to a token's lease: held · settled (by this token) · cancelled (with its task) · lost · unknown.
-- An attempt may move between two of the lookups, so whatever is not found is looked up again. A late outcome overwrites what ended
-- a lease, but whether the attempt counts still distinguishes them: a lost one counts, one revoked by a cancel does not.
create function sluice.fate_of_lease_v1(p_id uuid, p_token uuid) returns text language plpgsql volatile
as $$
declare v_outcome text; v_counted boolean;
begin
  for v_try in 1..5 loop
    if exists (select from sluice.tasks t where t.id = p_id and t.lease_token = p_token
               and t.lease_expires_at > clock_timestamp()) then
      return 'held';
    end if;
    select k.outcome, k.counted into v_outcome, v_counted
    from (
      select case when t.lease_token = p_token then 'lease_expired' else t.last_outcome end as outcome, t.last_counted as counted
      from sluice.tasks t where t.id = p_id and t.last_token = p_token
      union all
      select a.outcome, a.counted from sluice.attempts a where a.task_id = p_id and a.token = p_token
      union all
      select t.last_outcome, t.last_counted from sluice.task_history t where t.id = p_id and t.last_token = p_token
      union all
      select a.outcome, a.counted from sluice.attempt_history a where a.task_id = p_id and a.token = p_token) k
    limit 1;
    continue when not found;
    return case
      when v_outcome = 'cancelled' or v_outcome = 'stale' and not v_counted then 'cancelled'
      when v_outcome in ('lease_expired', 'stale') then 'lost'
      else 'settled' end;
  end loop;
  return 'unknown';
end $$;
