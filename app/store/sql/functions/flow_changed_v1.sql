-- Signal whoever holds the tenant's gate, in the transaction of the change itself: a flow's task is ready (it became so, or changed), a
-- gated run has ended, or a flow's task is gone, which the next task of an ordered key may wait for.
-- As a trigger, so that no statement can forget it; its conditions (baseline.sql) keep it away from plain tasks.
-- It also has the queue claimed through the gate from now on. Should another transaction have the queue's row, the fold does that.
create function sluice.flow_changed_v1() returns trigger language plpgsql volatile
as $$
declare v_ended boolean := coalesce(old.gated and old.state = :state_running, false);
begin
  if tg_op <> 'INSERT' and (v_ended or tg_op = 'DELETE' or old.flow_id is distinct from new.flow_id) then
    insert into sluice.flow_signals (tenant_id, flow_id, task_id, claims, queue_id, handler_id, key)
    values (old.tenant_id, coalesce(old.flow_id, 0), case when v_ended then old.id else '00000000-0000-0000-0000-000000000000' end,
            case when v_ended then old.claims else 0 end, old.queue_id, old.handler_id, old.options ->> 'key')
    on conflict do nothing;
  end if;
  if tg_op <> 'DELETE' and new.flow_id is not null and not (v_ended and new.flow_id = old.flow_id) then
    insert into sluice.flow_signals (tenant_id, flow_id, task_id, claims, queue_id, handler_id, key)
    values (new.tenant_id, new.flow_id, '00000000-0000-0000-0000-000000000000', 0, new.queue_id, new.handler_id, new.options ->> 'key')
    on conflict do nothing;
    if found then
      perform 1 from sluice.queues q where q.id = new.queue_id and not q.flows for no key update skip locked;
      if found then update sluice.queues q set flows = true where q.id = new.queue_id; end if;
    end if;
  end if;
  return null;
end $$;
