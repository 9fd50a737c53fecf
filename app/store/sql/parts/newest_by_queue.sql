-- The newest rows of each of a few queues, each with whether it matches; `part` distinguishes windows of the same side.
(
  select t.* from unnest({queues}) w(queue_id) cross join lateral (
    select t.id, '{table}' as side, ({fits}) as fits, t.queue_id as part from sluice.{table} t
    where t.queue_id = w.queue_id and t.id {beyond} $2::uuid{state} order by t.id {order} limit {rows}) t)
