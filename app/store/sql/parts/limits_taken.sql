-- The named limits that a task takes, each with the key it takes them by: its own list first, then its queue's (q), then its handler's (h).
(select distinct on (l.id) l.id as limit_id, case when l.keyed then coalesce(e.use ->> 'key', {key}) end as bucket_key
 from (select u.use, 1 as place from jsonb_array_elements({own}) u(use)
       union all select u.use, 2 from jsonb_array_elements(q.limits) u(use)
       union all select u.use, 3 from jsonb_array_elements(h.limits) u(use)) e
 join sluice.limits l on l.tenant_id = q.tenant_id and l.name = e.use ->> 'name' and {which}
 order by l.id, e.place)
