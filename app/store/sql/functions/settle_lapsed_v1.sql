-- Act on messages by receipt handles that may be of leases that have run out, as SQS does while nobody has received the message again:
-- the token is still the task's last one. p_seconds null: the lease has run out, and the task succeeds. Otherwise the task is hidden so
-- many seconds from now on: a lease ends then, also one that has run out and is not reaped yet, so it still has its slots; a task that
-- is ready, or waits, starts then.
-- Returns what it did: the tasks' tokens and queues, whether they ended, and at last (no token) what call_back_v1 says, if any of them
-- called back.
create function sluice.settle_lapsed_v1(p_ids uuid[], p_tokens uuid[], p_seconds double precision[])
returns table (token uuid, tenant_id bigint, queue_id bigint, ended boolean, callbacks jsonb) language plpgsql volatile
as $$
#variable_conflict use_column
declare v_now timestamptz; v_ended uuid[]; v_moved uuid[]; v_callbacks jsonb;
begin
  perform 1 from (select t.id from sluice.tasks t where t.id = any(p_ids) order by t.id for update) l;
  v_now := clock_timestamp();
  select array_agg(t.id) filter (where x.seconds is null), array_agg(t.id) filter (where x.seconds is not null)
    into v_ended, v_moved
  from unnest(p_ids, p_tokens, p_seconds) x(id, token, seconds)
  join sluice.tasks t on t.id = x.id and t.last_token = x.token
  where t.lease_token is null or t.lease_expires_at <= v_now or x.seconds is not null;
  return query
    select t.last_token, t.tenant_id, t.queue_id, t.id = any(coalesce(v_ended, '{}')), null::jsonb
    from sluice.tasks t where t.id = any(v_ended || v_moved);
  if v_moved is not null then
    update sluice.tasks t set renewed_at = v_now,
      lease_expires_at = least(v_now + make_interval(secs => x.seconds), t.last_started_at + interval '7 days')
    from unnest(p_ids, p_seconds) x(id, seconds) where t.id = x.id and t.id = any(v_moved) and t.lease_token is not null;
    perform sluice.signal_flows_v1(array(select t.id from sluice.tasks t where t.id = any(v_moved) and t.lease_token is null));
    update sluice.tasks t set run_at = v_now + make_interval(secs => x.seconds),
      state = case when x.seconds > 0 then :state_scheduled else :state_ready end
    from unnest(p_ids, p_seconds) x(id, seconds) where t.id = x.id and t.id = any(v_moved) and t.lease_token is null;
  end if;
  if v_ended is not null then
    update sluice.tasks t set last_outcome = 'succeeded', last_counted = true, last_ended_at = v_now where t.id = any(v_ended);
    v_callbacks := sluice.bury_v1(v_ended, :state_succeeded::smallint, null, array_fill(v_now, array[cardinality(v_ended)]));
    if v_callbacks is not null then
      token := null; callbacks := v_callbacks;
      return next;
    end if;
  end if;
end $$;
