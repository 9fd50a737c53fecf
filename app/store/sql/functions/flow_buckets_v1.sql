-- The buckets that a flow's tasks take: rates of queue, handler and tenant, the queue's limit of each key, and the named limits of the
-- tasks, of the queue and of the handler (p_handler: the one that is called); of several entries for one name, the first of these.
-- A bucket is a limit under a key: the one that its entry says, otherwise the task's; '' where the limit is not keyed.
create function sluice.flow_buckets_v1(p_tenant bigint, p_queue bigint, p_handler bigint, p_key text, p_own jsonb)
returns table (bucket_id bigint, limit_id bigint, kind text, key text, cost integer) language sql stable
begin atomic
  select sluice.bucket_v1(b.limit_id, b.key), b.limit_id, b.kind, b.key, b.cost
  from (
    select l.id as limit_id, l.kind, '' as key, 1 as cost
    from (values (p_queue, 'queue_rate'), (p_handler, 'handler_rate'), (p_tenant, 'tenant_rate')) o(id, kind)
    join sluice.limits l on l.owner_id = o.id and l.kind = o.kind
    union all
    select l.id, l.kind, p_key, 1 from sluice.limits l where l.owner_id = p_queue and l.kind = 'queue_key' and p_key is not null
    union all
    select l.id, l.kind, case when l.keyed then coalesce(u.entry ->> 'key', p_key, '') else '' end,
           coalesce((u.entry ->> 'cost')::integer, 1)
    from (
      select distinct on (e.entry ->> 'name') e.entry
      from (
        select 1 as place, jsonb_array_elements(coalesce(p_own, '[]')) as entry
        union all
        select 2, jsonb_array_elements(q.limits) from sluice.queues q where q.id = p_queue
        union all
        select 3, jsonb_array_elements(h.limits) from sluice.handlers h where h.id = p_handler) e
      order by e.entry ->> 'name', e.place) u
    join sluice.limits l on l.tenant_id = p_tenant and l.name = u.entry ->> 'name') b;
end;
