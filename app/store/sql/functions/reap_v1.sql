-- End attempts whose lease has expired, of one tenant or of all: the attempt counts and ended with its lease, and the task is ready
-- at once, or dead after its last allowed attempt. Returns them, and in the last row (no task) when the next lease expires.
-- An attempt whose late outcome is already recorded keeps that record. SKIP LOCKED: another replica has those rows, or their holder
-- is renewing them. Tenants share the limit, as in promote_v1.
-- callbacks, in the last row: what call_back_v1 says of those that are dead.
-- called: a replica was calling a handler under this lease, and counts the attempt itself.
create function sluice.reap_v1(p_limit integer, p_tenant bigint)
returns table (task_id uuid, tenant_id bigint, queue_id bigint, lane bigint, handler_id bigint, reason text, called boolean,
               tenant text, queue text, outcome text, ran_seconds double precision, next_at timestamptz, at timestamptz,
               callbacks jsonb[])
language plpgsql volatile
as $$
#variable_conflict use_column
declare
  v_tenants bigint[]; v_queues bigint[]; v_each integer; v_ids uuid[]; v_called uuid[]; v_dead uuid[]; v_expired uuid[];
  v_now timestamptz; v_next timestamptz; v_callbacks jsonb[];
begin
  for v_look in 1..2 loop
    -- the first lease to end of each queue that has one, by jumping from queue to queue in the index; first each tenant's queue
    -- that has waited longest
    with recursive firsts(tenant_id, queue_id, ends_at) as (
      select coalesce(p_tenant, 0), 0::bigint, null::timestamptz
      union all
      select n.tenant_id, n.queue_id, n.lease_expires_at from firsts f cross join lateral (
        select t.tenant_id, t.queue_id, t.lease_expires_at from sluice.tasks t
        where t.state = :state_running and (t.tenant_id, t.queue_id) > (f.tenant_id, f.queue_id)
        order by t.tenant_id, t.queue_id, t.lease_expires_at limit 1) n
      where p_tenant is null or n.tenant_id = p_tenant)
    select array_agg(l.tenant_id order by l.turn, l.ends_at) filter (where l.ends_at <= statement_timestamp()),
           array_agg(l.queue_id order by l.turn, l.ends_at) filter (where l.ends_at <= statement_timestamp()),
           count(distinct l.tenant_id) filter (where l.ends_at <= statement_timestamp()), min(l.ends_at)
      into v_tenants, v_queues, v_each, v_next
    from (select f.*, row_number() over (partition by f.tenant_id order by f.ends_at) as turn from firsts f
          where f.ends_at is not null) l;
    exit when v_look = 2 or v_tenants is null;
    v_each := greatest(1, p_limit / v_each);
    select array_agg(l.id), array_agg(l.id) filter (where l.lease_owner is not null) into v_ids, v_called
    from (
      select k.id, k.lease_owner from unnest(v_tenants, v_queues) w(tenant_id, queue_id) cross join lateral (
        select t.id, t.lease_owner from sluice.tasks t
        where t.state = :state_running and t.tenant_id = w.tenant_id and t.queue_id = w.queue_id
          and t.lease_expires_at <= statement_timestamp()
        order by t.lease_expires_at limit v_each for update skip locked) k
      limit p_limit) l;
    exit when v_ids is null;
    v_now := clock_timestamp();
    perform sluice.signal_flows_v1(v_ids);
    update sluice.tasks t set state = :state_ready, run_at = v_now, lease_token = null, lease_owner = null, lease_claim = null,
      lease_expires_at = null, last_counted = true, last_ended_at = coalesce(t.last_ended_at, t.lease_expires_at),
      last_outcome = coalesce(nullif(t.last_outcome, 'held'), 'lease_expired'),
      last_message = coalesce(t.last_message, 'the lease ran out: the replica or worker that held it went silent'),
      last_error = coalesce(t.last_message, 'the lease ran out: the replica or worker that held it went silent')
    where t.id = any(v_ids);
    select array_agg(t.id) filter (where t.attempt >= coalesce(t.max_attempts, q.max_attempts)),
           array_agg(t.id) filter (where t.attempt < coalesce(t.max_attempts, q.max_attempts) and t.expires_at <= v_now)
      into v_dead, v_expired
    from sluice.tasks t join sluice.queues q on q.id = t.queue_id where t.id = any(v_ids);
    return query
      select t.id, t.tenant_id, t.queue_id, t.handler_id, coalesce(t.lease_handler_id, 0),
             case when t.id = any(v_dead) then 'attempts_exhausted' when t.id = any(v_expired) then 'expired' end,
             t.id = any(coalesce(v_called, '{}')),
             n.name, q.name, t.last_outcome, extract(epoch from t.last_ended_at - t.last_started_at)::double precision,
             null::timestamptz, null::timestamptz, null::jsonb[]
      from sluice.tasks t join sluice.queues q on q.id = t.queue_id join sluice.tenants n on n.id = t.tenant_id
      where t.id = any(v_ids);
    if v_dead is not null then
      v_callbacks := v_callbacks
        || sluice.bury_v1(v_dead, :state_dead::smallint, 'attempts_exhausted', array_fill(v_now, array[cardinality(v_dead)]));
    end if;
    if v_expired is not null then
      v_callbacks := v_callbacks
        || sluice.bury_v1(v_expired, :state_dead::smallint, 'expired', array_fill(v_now, array[cardinality(v_expired)]));
    end if;
  end loop;
  task_id := null; next_at := v_next; at := clock_timestamp(); callbacks := v_callbacks;
  return next;
end $$;
