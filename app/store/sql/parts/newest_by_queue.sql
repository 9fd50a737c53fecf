-- The newest rows of each of a few queues, each with whether it matches; `part` distinguishes windows of the same side. Compared as
-- rows, no other index than that by queue and id has the order. With an equal queue, the planner may choose the primary key, and
-- then reads every task to find those of a queue that has few.
(
  select t.* from unnest({queues}) w(queue_id) cross join lateral (
    select t.id, '{table}' as side, ({fits}) as fits, t.queue_id as part from sluice.{table} t
    where (t.queue_id, t.id) {beyond} (w.queue_id, $2::uuid) and t.queue_id {until} w.queue_id{state}
    order by t.queue_id {order}, t.id {order} limit {rows}) t)
