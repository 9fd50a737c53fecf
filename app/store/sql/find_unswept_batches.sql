-- Batches marked as cancelled of which tasks may live: one of each tenant, then another of each, so that many of one tenant hold up
-- nobody else's.
with recursive firsts(tenant_id, id) as (
  (select b.tenant_id, b.id from sluice.batches b where b.cancelled_at is not null and not b.swept
   order by b.tenant_id, b.id limit 1)
  union all
  select n.tenant_id, n.id from firsts f cross join lateral (
    select b.tenant_id, b.id from sluice.batches b
    where b.cancelled_at is not null and not b.swept and b.tenant_id > f.tenant_id order by b.tenant_id, b.id limit 1) n)
select p.id from firsts f cross join lateral (
  select w.id, row_number() over (order by w.id) as turn from (
    select b.id from sluice.batches b
    where b.cancelled_at is not null and not b.swept and b.tenant_id = f.tenant_id
    order by b.id limit 4 * greatest(1, $1 / (select count(*) from firsts))) w) p
order by p.turn, p.id limit $1
