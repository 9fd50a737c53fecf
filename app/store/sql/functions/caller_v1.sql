-- Who calls sluice.enqueue: the tenant, and the patterns (of LIKE) of the queues that exist for it; null: all of the tenant's.
-- The role is the one that the session has set, else the one it logged in as. Neither can be forged: SET ROLE takes membership, and
-- within a SECURITY DEFINER function, current_user is its owner. A grant to the role itself goes before those of roles that it is a
-- member of. A grant counts while the role has the rights that came with it: one that was dropped, or renamed, leaves its name to others.
-- Those must agree on a tenant; then it may use the queues of each.
create function sluice.caller_v1(out tenant_id bigint, out queues text[]) language plpgsql stable
as $$
#variable_conflict use_column
declare v_role name := coalesce(nullif(current_setting('role'), 'none'), session_user); v_tenants bigint[]; v_all boolean;
  v_admitted oid[] := array(select a.grantee from pg_proc f, aclexplode(f.proacl) a
                            where f.oid = 'sluice.enqueue_many(text, jsonb[])'::regprocedure);
begin
  select array_agg(g.tenant_id), bool_or(g.queues is null), array_agg(p.pattern) filter (where p.pattern is not null)
    into v_tenants, v_all, queues
  from sluice.grants g join pg_roles r on r.rolname = g.role left join lateral unnest(g.queues) p(pattern) on true
  where g.role = v_role and r.oid = any(v_admitted);
  if v_tenants is null then
    select array_agg(distinct g.tenant_id), bool_or(g.queues is null), array_agg(p.pattern) filter (where p.pattern is not null)
      into v_tenants, v_all, queues
    from sluice.grants g join pg_roles r on r.rolname = g.role left join lateral unnest(g.queues) p(pattern) on true
    where pg_has_role(v_role, r.oid, 'usage') and r.oid = any(v_admitted);
  end if;
  if v_tenants is null then
    perform sluice.refuse_v1('forbidden', '', format('role %s may enqueue for no tenant', quote_ident(v_role)),
                             format('sluice grant %s --tenant NAME', v_role));
  elsif v_tenants[1] <> any(v_tenants) then
    perform sluice.refuse_v1('forbidden', '', format('role %s is a member of roles that may enqueue for different tenants', quote_ident(v_role)),
                             'SET ROLE to the one that is meant');
  end if;
  tenant_id := v_tenants[1];
  queues := case when not v_all then array(select replace(replace(q, '_', '\_'), '*', '%') from unnest(queues) q) end;
end $$;
