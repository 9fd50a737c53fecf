-- Actions that may go on now: one of each tenant, then another of each, so that many of one tenant hold up nobody else's.
with recursive firsts(tenant_id) as (
  (select a.tenant_id from sluice.actions a where a.state = 'running' order by a.tenant_id limit 1)
  union all
  select n.tenant_id from firsts f cross join lateral (
    select a.tenant_id from sluice.actions a where a.state = 'running' and a.tenant_id > f.tenant_id
    order by a.tenant_id limit 1) n)
select p.id from firsts f cross join lateral (
  select a.id, row_number() over (order by a.next_at, a.id) as turn from (
    select w.id, w.next_at from sluice.actions w
    where w.state = 'running' and w.tenant_id = f.tenant_id and w.next_at <= clock_timestamp() order by w.next_at limit $1) a) p
order by p.turn, p.id limit $1
