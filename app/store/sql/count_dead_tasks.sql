-- How many dead tasks of a queue match, as redrive_v1 finds them.
select count(*) from sluice.task_history t join sluice.queues q on q.id = t.queue_id
where t.queue_id = $1 and t.state = :state_dead and t.kept_until > statement_timestamp() and t.ended_at < $9
  and ($2::text is null or t.reason = $2) and ($3::text is null or t.options ->> 'type' = $3)
  and ($4::text is null or t.options -> 'tags' ? $4) and ($6::text is null or t.options ->> 'correlation_id' = $6)
  and ($5::bigint[] is null or coalesce(nullif(t.handler_id, 0), t.lease_handler_id, q.handler_id) = any($5))
  and ($7::timestamptz is null or t.ended_at >= $7) and ($8::timestamptz is null or t.ended_at < $8)
