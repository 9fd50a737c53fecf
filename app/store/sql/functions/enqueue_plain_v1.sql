-- Insert one group of tasks that have nothing but a payload. Answer and receipt are those of enqueue_v1, at two thirds of its cost: no
-- options to read, no verdict to look for, and a queue is read once. p_queues and p_versions name the one queue of all tasks, which is
-- cheaper still, or that of each.
-- Whatever enqueue_v1 would refuse, or has to count, is left to it: a changed definition, and a queue with max_depth.
create function sluice.enqueue_plain_v1(
  p_group uuid, p_queues bigint[], p_versions bigint[], p_ids uuid[], p_payloads bytea[])
returns jsonb language plpgsql volatile
as $$
declare
  v_receipt jsonb; v_tenant bigint; v_tenants bigint[]; v_known boolean; v_code text; v_waiting jsonb; v_now timestamptz;
  v_one boolean := cardinality(p_queues) = 1;
begin
  perform pg_advisory_xact_lock(:lock_group, hashtext(p_group::text));
  select r.verdicts into v_receipt from sluice.receipts r where r.group_id = p_group;
  if found then return v_receipt; end if;
  -- definitions are read in a statement after the locks, under which they cannot change
  if v_one then
    perform pg_advisory_xact_lock_shared(:lock_queue, p_queues[1]::integer);
    select q.tenant_id, case when q.paused then 'queue_paused' when q.handler_id is null then 'worker'
                             when not h.enabled then 'handler_disabled' end
      into v_tenant, v_code
    from sluice.queues q left join sluice.handlers h on h.id = q.handler_id
    where q.id = p_queues[1] and q.version = p_versions[1] and q.deleted_at is null and q.max_depth is null;
    v_known := found;
    if v_code is not null then v_waiting := jsonb_build_object(p_queues[1], v_code); end if;
  else
    perform pg_advisory_xact_lock_shared(:lock_queue, s.id::integer) from (select distinct id from unnest(p_queues) id order by id) s;
    select array_agg(q.tenant_id order by u.n), bool_and(q.id is not null),
           jsonb_object_agg(u.id, case when q.paused then 'queue_paused' when q.handler_id is null then 'worker'
                                       else 'handler_disabled' end)
             filter (where q.paused or q.handler_id is null or not h.enabled)
      into v_tenants, v_known, v_waiting
    from unnest(p_queues, p_versions) with ordinality u(id, version, n)
    left join sluice.queues q on q.id = u.id and q.version = u.version and q.deleted_at is null and q.max_depth is null
    left join sluice.handlers h on h.id = q.handler_id;
  end if;
  if not v_known then
    return sluice.enqueue_v1(p_group, array(
      select (u.id, coalesce(u.queue_id, p_queues[1]), coalesce(u.version, p_versions[1]), 0, u.payload, null, null, null, 0, null, null,
              null, null, null, null, null, null, null)::sluice.entry_v1
      from unnest(p_ids, p_payloads, p_queues, p_versions) with ordinality u(id, payload, queue_id, version, n) order by u.n));
  end if;
  v_now := clock_timestamp();
  if v_one then
    insert into sluice.tasks (id, tenant_id, queue_id, handler_id, state, priority, run_at, created_at, payload)
    select u.id, v_tenant, p_queues[1], 0, :state_ready, 0, v_now, v_now, u.payload from unnest(p_ids, p_payloads) u(id, payload);
  else
    insert into sluice.tasks (id, tenant_id, queue_id, handler_id, state, priority, run_at, created_at, payload)
    select u.id, u.tenant_id, u.queue_id, 0, :state_ready, 0, v_now, v_now, u.payload
    from unnest(p_ids, v_tenants, p_queues, p_payloads) u(id, tenant_id, queue_id, payload);
  end if;
  v_receipt := jsonb_strip_nulls(jsonb_build_object('at', v_now, 'waiting', v_waiting));
  insert into sluice.receipts (group_id, verdicts) values (p_group, v_receipt);
  return v_receipt;
end $$;
