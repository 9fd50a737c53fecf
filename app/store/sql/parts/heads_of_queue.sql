-- What comes first in each lane of queue $2 of tenant $1, and in some of its flows, open ones first. If nothing is ready, a row that
-- stands for any task of the queue.
(select r.* from (
   select r.* from (select 0::bigint as handler_id
                    union all (select distinct l.handler_id from sluice.lanes l where l.queue_id = $2 order by l.handler_id limit 8)) l
   cross join lateral (
     select r.* from sluice.tasks r
     where r.queue_id = $2 and r.handler_id = l.handler_id and r.state = :state_ready and r.flow_id is null
     order by r.priority desc, r.run_at, r.id limit 1) r
   union all
   select r.* from (
     (select f.id from sluice.flows f where f.queue_id = $2 and f.parked_on is null and not f.plain limit 3)
     union all
     (select f.id from sluice.flows f where f.queue_id = $2 and f.parked_on is not null and not f.plain limit 3)) f
   cross join lateral (
     select r.* from sluice.tasks r where r.queue_id = $2 and r.flow_id = f.id and r.state = :state_ready
     order by r.priority desc, r.run_at, r.id limit 1) r
   union all
   select r.* from json_populate_record(null::sluice.tasks, json_build_object(
     'tenant_id', $1::bigint, 'queue_id', $2::bigint, 'handler_id', 0, 'state', :state_ready, 'priority', 0, 'attempt', 0, 'claims', 0)) r) r)
