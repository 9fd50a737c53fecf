-- Add a row to the audit; p_row has its columns except at and id. If the month has no partition (months are made ahead, but a database
-- restored from an old backup lacks them), it is made: a change must not fail because it cannot be recorded.
create function sluice.record_audit_v1(p_row json) returns void language plpgsql volatile
as $$
begin
  for v_try in 1..2 loop
    begin
      insert into sluice.audit (tenant_id, actor, actor_key, actor_tenant, actor_scope, verb, noun, name, outcome, code, calls, before, after,
                                address, request_id, replica)
      select r.tenant_id, r.actor, r.actor_key, r.actor_tenant, r.actor_scope, r.verb, r.noun, r.name, r.outcome, r.code,
        coalesce(r.calls, 1), r.before, r.after, r.address, r.request_id, r.replica
      from json_to_record(p_row) r(tenant_id bigint, actor text, actor_key text, actor_tenant text, actor_scope text,
        verb text, noun text, name text, outcome text, code text, calls integer, before json, after json, address text, request_id text, replica text);
      return;
    exception when check_violation then
      if v_try = 2 then raise; end if;
      perform sluice.ensure_partitions_v1(0);
    end;
  end loop;
end $$;
