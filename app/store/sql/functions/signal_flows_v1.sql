-- Signal whoever holds the tenants' gates that these tasks change, in the transaction that changes them: a flow's task has become
-- ready, or was changed; or, before it happens, a run ends, or a task goes, which the next task of an ordered key may wait for.
-- A run that is signalled must end: its hold is deleted with the signal. Plain tasks that were claimed without the gate are passed over.
create function sluice.signal_flows_v1(p_ids uuid[]) returns void language plpgsql volatile
as $$
begin
  insert into sluice.flow_signals (tenant_id, flow_id, task_id, claims, queue_id, handler_id, key)
  select t.tenant_id, coalesce(t.flow_id, 0), case when r.runs then t.id else '00000000-0000-0000-0000-000000000000' end,
         case when r.runs then t.claims else 0 end, t.queue_id, t.handler_id, t.options ->> 'key'
  from sluice.tasks t cross join lateral (select t.gated and t.lease_token is not null as runs) r
  where t.id = any(p_ids) and (t.flow_id is not null or r.runs)
  on conflict do nothing;
end $$;
