-- Whether queue $1 is in use: by an unfinished task, a schedule, or the end of a batch. Each check is one index probe.
select exists (select from sluice.tasks where queue_id = $1 and state <> :state_running and claims >= 0)
  or exists (select from sluice.tasks where state = :state_running and queue_id = $1
             and tenant_id = (select tenant_id from sluice.queues where id = $1))
  or exists (select from sluice.batch_completions where queue_id = $1 and task_id is null)
  or exists (select from sluice.schedules where $1 in (queue_id, then_queue_id) and deleted_at is null)
