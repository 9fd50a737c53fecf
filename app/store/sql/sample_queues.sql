-- How many tasks of queues $1 are ready ($2) and running ($3), as of this minute. The replica that first adds the row of queue 0 does
-- it; others that try meanwhile wait for its commit, and then do nothing. Sorted by key, as add_minutes.
with mine as (
  insert into sluice.queue_minutes (queue_id, minute) values (0, date_trunc('minute', statement_timestamp()))
  on conflict do nothing returning minute),
written as (
  insert into sluice.queue_minutes as m (queue_id, minute, ready, running)
  select i.queue_id, mine.minute, i.ready, i.running
  from mine cross join unnest($1::bigint[], $2::bigint[], $3::bigint[]) i(queue_id, ready, running) order by i.queue_id
  on conflict (queue_id, minute) do update set ready = excluded.ready, running = excluded.running)
select exists (select from mine)
