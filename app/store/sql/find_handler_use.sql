-- Whether an unfinished task or a schedule names handler $1 itself. Lanes say which queues to check. Each state is checked
-- separately, because each has an index of its own and no index has all of them.
select exists (
  select from sluice.lanes l join sluice.queues q on q.id = l.queue_id where l.handler_id = $1 and (
    exists (select from sluice.tasks t where t.queue_id = l.queue_id and t.handler_id = $1 and t.state = :state_ready and t.flow_id is null)
    or exists (select from sluice.tasks t
               where t.queue_id = l.queue_id and t.handler_id = $1 and t.state = :state_ready and t.flow_id is not null)
    or exists (select from sluice.tasks t
               where t.tenant_id = q.tenant_id and t.queue_id = l.queue_id and t.handler_id = $1 and t.state = :state_running)
    or exists (select from sluice.tasks t where t.queue_id = l.queue_id and t.handler_id = $1 and t.state = :state_scheduled)
    or exists (select from sluice.schedules s where s.queue_id = l.queue_id and s.handler_id = $1 and s.deleted_at is null)))
