-- Set the flow of a new task, whatever inserts it, and signal that the task is there. Those few statements that change a task's options
-- set its flow themselves, and those that end runs or make tasks ready call signal_flows_v1: triggers on updates and deletes, and a
-- generated column still more, would cost plain tasks too much.
-- From now on, the queue is claimed through its tenant's gate. Should another transaction have its row, the fold sees to that.
create function sluice.join_flow_v1() returns trigger language plpgsql volatile
as $$
begin
  new.flow_id := sluice.flow_id_v1(new.queue_id, new.handler_id, new.options);
  insert into sluice.flow_signals (tenant_id, flow_id, task_id, claims, queue_id, handler_id, key)
  values (new.tenant_id, new.flow_id, '00000000-0000-0000-0000-000000000000', 0, new.queue_id, new.handler_id, new.options ->> 'key')
  on conflict do nothing;
  if found then
    perform 1 from sluice.queues q where q.id = new.queue_id and not q.flows for no key update skip locked;
    if found then update sluice.queues q set flows = true where q.id = new.queue_id; end if;
  end if;
  return new;
end $$;
