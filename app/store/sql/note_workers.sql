-- Workers ask for tasks of these queues now. Sorted by key, as all grouped statements.
insert into sluice.queue_workers (queue_id, asked_at)
select q, clock_timestamp() from unnest($1::bigint[]) q order by q
on conflict (queue_id) do update set asked_at = excluded.asked_at
