-- Insert one group of tasks of one queue that have nothing but a payload. Answer and receipt are those of enqueue_v1, at two thirds of
-- its cost: no options to read, no verdict to look for, and the queue is read once instead of joined.
-- Whatever enqueue_v1 would refuse, or has to count, is left to it: a changed definition, and a queue with max_depth.
create function sluice.enqueue_plain_v1(
  p_group uuid, p_queue bigint, p_version bigint, p_ids uuid[], p_payloads bytea[])
returns jsonb language plpgsql volatile
as $$
declare v_receipt jsonb; v_tenant bigint; v_waiting text; v_now timestamptz;
begin
  perform pg_advisory_xact_lock(:lock_group, hashtext(p_group::text));
  select r.verdicts into v_receipt from sluice.receipts r where r.group_id = p_group;
  if found then return v_receipt; end if;
  perform pg_advisory_xact_lock_shared(:lock_queue, p_queue::integer);
  -- in a statement after the lock, under which the definition cannot change
  select q.tenant_id, case when q.paused then 'queue_paused' when q.handler_id is null then 'worker'
                           when not h.enabled then 'handler_disabled' end
    into v_tenant, v_waiting
  from sluice.queues q left join sluice.handlers h on h.id = q.handler_id
  where q.id = p_queue and q.version = p_version and q.deleted_at is null and q.max_depth is null;
  if not found then
    return sluice.enqueue_v1(p_group, array(
      select (u.id, p_queue, p_version, 0, u.payload, null, null, null, 0, null, null, null, null, null, null,
              null, null, null)::sluice.entry_v1
      from unnest(p_ids, p_payloads) with ordinality u(id, payload, n) order by u.n));
  end if;
  v_now := clock_timestamp();
  insert into sluice.tasks (id, tenant_id, queue_id, handler_id, state, priority, run_at, created_at, payload)
  select u.id, v_tenant, p_queue, 0, :state_ready, 0, v_now, v_now, u.payload from unnest(p_ids, p_payloads) u(id, payload);
  v_receipt := jsonb_build_object('at', v_now);
  if v_waiting is not null then
    v_receipt := v_receipt || jsonb_build_object('waiting', jsonb_build_object(p_queue, v_waiting));
  end if;
  insert into sluice.receipts (group_id, verdicts) values (p_group, v_receipt);
  return v_receipt;
end $$;
