-- Seconds until the first schedule of any tenant is due: one index probe per tenant, as in find_due_schedules.
with recursive firsts(tenant_id, look_at) as (
  (select s.tenant_id, s.look_at from sluice.schedules s where s.look_at is not null order by s.tenant_id, s.look_at limit 1)
  union all
  select n.tenant_id, n.look_at from firsts f cross join lateral (
    select s.tenant_id, s.look_at from sluice.schedules s where s.look_at is not null and s.tenant_id > f.tenant_id
    order by s.tenant_id, s.look_at limit 1) n)
select extract(epoch from min(f.look_at) - clock_timestamp())::float8 from firsts f
