-- See that the limits a task names are not deleted before the transaction ends, and that the caller may name them: one that is confined
-- to queues only those which these queues and their handlers name.
create function sluice.hold_limits_v1(p_tenant bigint, p_uses jsonb, p_visible text[], p_where text) returns void
language plpgsql volatile
as $$
declare v_use record;
begin
  if p_uses is null then return; end if;
  perform pg_advisory_xact_lock_shared(:lock_caller, hashtext(format('limit %s %s', p_tenant, u.value ->> 'name')))
    from jsonb_array_elements(p_uses) u;
  perform sluice.see_latest_v1('sluice.limits', array(
    select l.id from sluice.limits l, jsonb_array_elements(p_uses) u where l.tenant_id = p_tenant and l.name = u.value ->> 'name'));
  if p_visible is null then return; end if;
  select u.value ->> 'name' as name, u.n - 1 as place into v_use
  from jsonb_array_elements(p_uses) with ordinality u(value, n)
  where not exists (
    select from sluice.queues q left join sluice.handlers h on h.id = q.handler_id
    where q.tenant_id = p_tenant and q.deleted_at is null and q.name like any(p_visible)
      and (coalesce(h.limits, '[]') || q.limits) @> jsonb_build_array(jsonb_build_object('name', u.value -> 'name')))
  limit 1;
  if found then
    perform sluice.refuse_v1('invalid', format('%s/limits/%s/name', p_where, v_use.place), format('there is no limit %s', v_use.name));
  end if;
end $$;
