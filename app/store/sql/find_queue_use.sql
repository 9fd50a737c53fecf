-- Whether queue $1 is in use: by an unfinished task, a schedule, a source, the end of a batch, or callbacks of another queue or of its unfinished
-- tasks. Each check is one index probe, except the last: it reads the tasks of queues that have had such a task until it finds one.
-- $2: whether tasks and callbacks count, which SQS deletes a queue in spite of.
select $2 and exists (select from sluice.tasks where queue_id = $1 and state <> :state_running and claims >= 0)
  or $2 and exists (select from sluice.tasks where state = :state_running and queue_id = $1
             and tenant_id = (select tenant_id from sluice.queues where id = $1))
  or exists (select from sluice.batch_completions where queue_id = $1 and task_id is null)
  or exists (select from sluice.schedules where $1 in (queue_id, then_queue_id) and deleted_at is null)
  or exists (select from sluice.sources where queue_id = $1)
  or $2 and exists (select from sluice.queues d join sluice.queues q on q.tenant_id = d.tenant_id
             where d.id = $1 and q.id <> $1 and q.deleted_at is null
               and jsonb_path_exists(q.callbacks, '$.*.queue ? (@ == $name)', jsonb_build_object('name', d.name)))
  or $2 and exists (
    select from sluice.callback_uses u join sluice.queues d on d.id = u.queue_id
    cross join lateral (
      select t.options from sluice.tasks t where t.queue_id = u.by_queue_id and t.state <> :state_running and t.claims >= 0
      union all
      select t.options from sluice.tasks t
      where t.state = :state_running and t.tenant_id = d.tenant_id and t.queue_id = u.by_queue_id) t
    where u.queue_id = $1
      and jsonb_path_exists(t.options, '$.callbacks.*.queue ? (@ == $name)', jsonb_build_object('name', d.name)))
