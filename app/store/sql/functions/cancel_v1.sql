-- Cancel live tasks of one tenant. A running one loses its lease at once, and its attempt does not count. Returns what was
-- cancelled, with the holder to notify and the outcome of the running attempt, if any; a row without a task says what call_back_v1 says,
-- if any of them called back. Ids that are not returned are not live,
-- and the caller checks history in a later statement.
create function sluice.cancel_v1(p_tenant bigint, p_ids uuid[], p_reason text)
returns table (task_id uuid, queue_id bigint, owner uuid, tenant text, queue text, outcome text, ran_seconds double precision,
               tenant_id bigint, handler_id bigint, callbacks jsonb)
language plpgsql volatile
as $$
#variable_conflict use_column
declare v_ids uuid[]; v_now timestamptz;
begin
  perform set_config('lock_timeout', '500', true);  -- a transaction of others may hold a row, and go on
  select array_agg(l.id) into v_ids
  from (select t.id from sluice.tasks t where t.id = any(p_ids) and t.tenant_id = p_tenant order by t.id for update) l;
  if v_ids is null then return; end if;
  v_now := clock_timestamp();
  -- an expired lease was lost before this cancel, so its attempt counts
  update sluice.tasks t set
    attempt = t.attempt - case when t.lease_expires_at > v_now then 1 else 0 end,
    last_counted = t.lease_expires_at <= v_now, last_ended_at = v_now,
    last_outcome = coalesce(nullif(t.last_outcome, 'held'), case when t.lease_expires_at > v_now then 'cancelled' else 'lease_expired' end)
  where t.id = any(v_ids) and t.lease_token is not null;
  return query
    select t.id, t.queue_id, t.lease_owner, n.name, q.name, case when t.state = :state_running then t.last_outcome end,
           case when t.state = :state_running then extract(epoch from v_now - t.last_started_at)::double precision end,
           p_tenant, coalesce(t.lease_handler_id, 0), null::jsonb
    from sluice.tasks t join sluice.queues q on q.id = t.queue_id join sluice.tenants n on n.id = t.tenant_id
    where t.id = any(v_ids);
  task_id := null;
  callbacks := sluice.bury_v1(v_ids, :state_cancelled::smallint, p_reason, array_fill(v_now, array[cardinality(v_ids)]));
  if callbacks is not null then return next; end if;
end $$;
