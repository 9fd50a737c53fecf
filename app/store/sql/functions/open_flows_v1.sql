-- Open flows that are parked on these buckets, of each up to so many in every lane that has some: in one lane would not do, because
-- that lane may be paused or full while another could go on. Opening too many is harmless, they park again. Those served least come
-- first, and none is behind its lane. Returns the lanes, [[queue, handler], …]. Only under the tenant's gate.
create function sluice.open_flows_v1(p_buckets bigint[], p_counts integer[]) returns jsonb language plpgsql volatile
as $$
declare v_opened jsonb;
begin
  with recursive lanes(bucket_id, n, queue_id, handler_id) as (
    select b.id, b.n, 0::bigint, -1::bigint from unnest(p_buckets, p_counts) b(id, n)
    union all
    select l.bucket_id, l.n, x.queue_id, x.handler_id from lanes l cross join lateral (
      select f.queue_id, f.handler_id from sluice.flows f
      where f.parked_on = l.bucket_id and (f.queue_id, f.handler_id) > (l.queue_id, l.handler_id)
      order by f.queue_id, f.handler_id limit 1) x),
  found as materialized (
    select distinct x.id, l.queue_id, l.handler_id from lanes l cross join lateral (
      select f.id from sluice.flows f
      where f.parked_on = l.bucket_id and f.queue_id = l.queue_id and f.handler_id = l.handler_id
      order by f.priority desc, f.vt, f.id limit l.n) x
    where l.queue_id > 0),
  opened as (
    update sluice.flows f set parked_on = null, parked_limit = null, vt = greatest(f.vt, (
      select p.clock from sluice.flows p where p.id = sluice.hash_v1('plain ' || f.queue_id::text || ' ' || f.handler_id::text)))
    from found x where f.id = x.id
    returning f.queue_id, f.handler_id)
  select jsonb_agg(jsonb_build_array(o.queue_id, o.handler_id)) into v_opened
  from (select distinct o.queue_id, o.handler_id from opened o) o;
  return coalesce(v_opened, '[]');
end $$;
