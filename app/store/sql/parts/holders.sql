-- The longest running of the tasks that hold a place, as JSON.
(select coalesce(json_agg(x), '[]')::text from (
   select r.id as task, d.name as queue, r.last_started_at as started_at, r.last_replica as replica, r.lease_expires_at
   from (select r.* from {source} limit 1000) r
   join sluice.queues d on d.id = r.queue_id order by r.last_started_at, r.id limit 20) x)
