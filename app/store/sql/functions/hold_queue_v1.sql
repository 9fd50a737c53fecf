-- The id of a tenant's queue, which cannot be deleted before the transaction ends; null: there is none. The lock hinders nothing but a
-- deletion, which tries for it: the caller's transaction may last.
create function sluice.hold_queue_v1(p_tenant bigint, p_name text) returns bigint language plpgsql volatile
as $$
declare v_id bigint;
begin
  select q.id into v_id from sluice.queues q where q.tenant_id = p_tenant and q.name = p_name and q.deleted_at is null;
  if not found then return null; end if;
  perform pg_advisory_xact_lock_shared(:lock_caller, hashtext('queue ' || v_id));
  perform sluice.see_latest_v1('sluice.queues', array[v_id]);
  return (select q.id from sluice.queues q where q.id = v_id and q.deleted_at is null);
end $$;
