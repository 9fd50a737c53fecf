-- The first schedules of each tenant, by one index probe each: tenants share the result, so that ten thousand due schedules of
-- one do not delay the others. Of each tenant, a random sample of a window wider than its share, so that replicas that look at
-- the same time seldom take the same ones. It uses the statement's time: with a clock that moves, each look would scan all
-- schedules.
with recursive firsts(tenant_id, look_at) as (
  (select s.tenant_id, s.look_at from sluice.schedules s where s.look_at is not null order by s.tenant_id, s.look_at limit 1)
  union all
  select n.tenant_id, n.look_at from firsts f cross join lateral (
    select s.tenant_id, s.look_at from sluice.schedules s where s.look_at is not null and s.tenant_id > f.tenant_id
    order by s.tenant_id, s.look_at limit 1) n),
part as (select greatest(1, $1 / greatest(1, count(*))) as size from firsts where look_at <= statement_timestamp())
select p.id from firsts f cross join lateral (
  select w.id, row_number() over (order by random()) as turn from (
    select s.id from sluice.schedules s
    where s.look_at is not null and s.tenant_id = f.tenant_id and s.look_at <= statement_timestamp()
    order by s.look_at limit 4 * (select size from part)) w) p
where f.look_at <= statement_timestamp()
order by p.turn, random() limit $1
