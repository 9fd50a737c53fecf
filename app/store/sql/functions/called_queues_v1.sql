-- The queues that entries name in callbacks of their own: one row per callback, with the entry's ordinal from 1 and its queue. called_id
-- is null if there is no such queue.
create function sluice.called_queues_v1(p_entries sluice.entry_v1[])
returns table (n bigint, queue_id bigint, called_id bigint) language sql stable
as $$
  select e.ordinality, e.queue_id, c.id
  from unnest(p_entries) with ordinality e
  join sluice.queues q on q.id = e.queue_id
  cross join lateral jsonb_each(e.options -> 'callbacks') b
  left join sluice.queues c on c.tenant_id = q.tenant_id and c.name = b.value ->> 'queue' and c.deleted_at is null
  where jsonb_typeof(b.value) = 'object'
$$;
