-- Actions of a tenant below an id, newest first: with patterns of queues ($4), those that are on such a queue or were started by the key $5.
select a.* from sluice.actions a
where a.tenant_id = $1 and a.id < $2 and ($4::text[] is null or a.created_by = $5
  or a.filter ->> 'queue' like any($4) and coalesce(a.filter ->> 'to' like any($4), true))
order by a.id desc limit $3
