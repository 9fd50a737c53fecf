-- The keys of queue $1 that have ready tasks: how many wait, how many of these no claim can admit now, and those with most ready tasks.
-- Ready tasks are counted by flow, in the order of their index; the flows of one key are summed then. Tasks without a key are not counted.
with counted as materialized (
  select t.flow_id, count(*)::bigint as ready, min(t.run_at) as oldest from sluice.tasks t
  where t.queue_id = $1 and t.state = :state_ready and t.flow_id is not null group by t.flow_id),
keys as (
  select f.key, sum(c.ready)::bigint as ready, min(c.oldest) as oldest, bool_and(f.parked_on is not null) as blocked
  from counted c join sluice.flows f on f.id = c.flow_id where f.key is not null group by f.key)
select count(*) as waiting, count(*) filter (where k.blocked) as blocked,
  (select jsonb_agg(jsonb_build_object('key', t.key, 'ready', t.ready, 'oldest_age_seconds',
                                       extract(epoch from statement_timestamp() - t.oldest)::double precision))
   from (select * from keys order by ready desc, key limit $2) t) as top
from keys k
