-- The id of the handler that a task names itself, which cannot be deleted before the transaction ends; 0: it names none.
create function sluice.own_handler_v1(p_tenant bigint, p_name text, p_queue sluice.queues, p_visible text[], p_where text) returns bigint
language plpgsql volatile
as $$
declare v_id bigint;
begin
  if p_name is null then return 0; end if;
  if p_queue.handler_id is null then
    perform sluice.refuse_v1('invalid', p_where,
                             format('queue %s is for pull workers, so its tasks cannot name a handler', p_queue.name));
  end if;
  select h.id into v_id from sluice.handlers h
  where h.tenant_id = p_tenant and h.name = p_name and h.deleted_at is null and (p_visible is null or exists (
    select from sluice.queues q
    where q.tenant_id = p_tenant and q.handler_id = h.id and q.deleted_at is null and q.name like any(p_visible)));
  if found then
    perform pg_advisory_xact_lock_shared(:lock_caller, hashtext('handler ' || v_id));
    perform sluice.see_latest_v1('sluice.handlers', array[v_id]);
    select h.id into v_id from sluice.handlers h where h.id = v_id and h.deleted_at is null;
  end if;
  if not found then
    perform sluice.refuse_v1('invalid', p_where, format('there is no handler %s', p_name));
  end if;
  return v_id;
end $$;
