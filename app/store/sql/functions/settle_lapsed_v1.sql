-- Act on messages by receipt handles that may be of leases that have run out, as SQS does. p_seconds null: the lease has run out, and
-- the task succeeds. Otherwise the task is hidden so many seconds from now on: a lease ends then, also one that has run out and is not
-- reaped yet, so it still has its slots; a task that is ready, or waits, starts then.
-- While somebody else has received the message again, an earlier handle takes nothing from them: it does not end the task, and makes
-- their lease longer at most.
-- Returns the tokens that acted, whether their tasks ended, and at last (no token) what call_back_v1 says, if any of them called back.
create function sluice.settle_lapsed_v1(p_ids uuid[], p_tokens uuid[], p_seconds double precision[])
returns table (token uuid, ended boolean, callbacks jsonb) language plpgsql volatile
as $$
#variable_conflict use_column
declare
  v_now timestamptz; v_ids uuid[]; v_tokens uuid[]; v_seconds double precision[]; v_others boolean[]; v_ended uuid[];
  v_waiting uuid[]; v_callbacks jsonb;
begin
  perform set_config('lock_timeout', '500', true);  -- as in retry_v1
  perform 1 from (select t.id from sluice.tasks t where t.id = any(p_ids) order by t.id for update) l;
  v_now := clock_timestamp();
  select array_agg(s.id), array_agg(s.token), array_agg(s.seconds), array_agg(s.others) into v_ids, v_tokens, v_seconds, v_others
  from (
    select t.id, x.token, x.seconds, t.lease_token <> x.token and t.lease_expires_at > v_now as others,
           t.lease_token is not null and t.lease_expires_at > v_now as held
    from unnest(p_ids, p_tokens, p_seconds) x(id, token, seconds)
    join sluice.tasks t on t.id = x.id
    where t.last_token = x.token or exists (
      select from sluice.attempts a
      where a.task_id = x.id and a.token = x.token and coalesce(a.outcome, 'lease_expired') in ('lease_expired', 'stale'))) s
  where s.seconds is not null or not s.held;
  if v_ids is null then return; end if;
  v_ended := array(select distinct x.id from unnest(v_ids, v_seconds) x(id, seconds) where x.seconds is null order by x.id);
  return query select x.token, x.seconds is null, null::jsonb from unnest(v_tokens, v_seconds) x(token, seconds);
  update sluice.tasks t set renewed_at = v_now,
    lease_expires_at = least(
      case when x.others then greatest(t.lease_expires_at, v_now + make_interval(secs => x.seconds))
        else v_now + make_interval(secs => x.seconds) end,
      t.last_started_at + interval '7 days')
  from unnest(v_ids, v_seconds, v_others) x(id, seconds, others)
  where t.id = x.id and t.id <> all(v_ended) and x.seconds is not null and t.lease_token is not null;
  v_waiting := array(select t.id from sluice.tasks t where t.id = any(v_ids) and t.id <> all(v_ended) and t.lease_token is null);
  if v_waiting <> '{}' then
    perform sluice.signal_flows_v1(v_waiting);
    update sluice.tasks t set run_at = v_now + make_interval(secs => x.seconds),
      state = case when x.seconds > 0 then :state_scheduled else :state_ready end
    from unnest(v_ids, v_seconds) x(id, seconds) where t.id = x.id and t.id = any(v_waiting);
    perform sluice.signal_flows_v1(v_waiting);
  end if;
  if v_ended <> '{}' then
    update sluice.tasks t set last_outcome = 'succeeded', last_counted = true, last_ended_at = v_now where t.id = any(v_ended);
    v_callbacks := sluice.bury_v1(v_ended, :state_succeeded::smallint, null, array_fill(v_now, array[cardinality(v_ended)]));
    if v_callbacks is not null then
      token := null; callbacks := v_callbacks;
      return next;
    end if;
  end if;
end $$;
