-- Fold the deltas of up to p_limit batches into their counts, and enqueue what waits for a batch that has completed: it is sealed
-- and all of its tasks have ended. Returns one row per batch: whether it completed just now, and the queue of each enqueued task.
-- The batch's row is locked first and the deltas are summed in a later statement: otherwise two last settlers that each count "one
-- left" would never complete it. Batches that another replica is folding are skipped; they are checked again while deltas exist.
-- Tenants share the limit, so that a million batches of one do not delay the others. The last row (no batch) says whether any
-- tenant has more to fold.
create function sluice.fold_v1(p_limit integer)
returns table (batch_id uuid, completed boolean, queues bigint[]) language plpgsql volatile
as $$
#variable_conflict use_column
declare
  c_recent constant double precision := 30;  -- domain/batches.py has it too
  v_tenants bigint[]; v_each integer; v_pending uuid[]; v_more boolean; v_ids uuid[]; v_ended uuid[]; v_new uuid[]; v_now timestamptz;
begin
  -- one index probe per tenant, then one per batch, however many deltas each has
  with recursive owners(id) as (
    (select d.tenant_id from sluice.batch_deltas d order by d.tenant_id limit 1)
    union all
    select (select d.tenant_id from sluice.batch_deltas d where d.tenant_id > o.id order by d.tenant_id limit 1)
    from owners o where o.id is not null)
  select array_agg(o.id) into v_tenants from owners o where o.id is not null;
  if v_tenants is null then return; end if;
  v_each := greatest(1, p_limit / cardinality(v_tenants));
  with recursive pending(tenant_id, id, place) as (
    select w.id, (select d.batch_id from sluice.batch_deltas d where d.tenant_id = w.id order by d.batch_id limit 1), 1
    from unnest(v_tenants) w(id)
    union all
    select p.tenant_id, (select d.batch_id from sluice.batch_deltas d where d.tenant_id = p.tenant_id and d.batch_id > p.id
                         order by d.batch_id limit 1), p.place + 1
    from pending p where p.id is not null and p.place < v_each)
  select array_agg(p.tenant_id), array_agg(p.id), bool_or(p.place = v_each) into v_tenants, v_pending, v_more
  from pending p where p.id is not null;
  if v_pending is null then return; end if;
  delete from sluice.batch_deltas d using unnest(v_tenants, v_pending) w(tenant_id, id)
  where d.tenant_id = w.tenant_id and d.batch_id = w.id
    and not exists (select from sluice.batches b where b.id = d.batch_id);  -- forgotten with its batch
  select array_agg(l.id) into v_ids
  from (select b.id from sluice.batches b where b.id = any(v_pending) order by b.id for no key update skip locked) l;
  if v_ids is null then return; end if;

  -- recent decays to 1/e within c_recent seconds, so that recent / c_recent is the rate at which tasks end
  v_now := clock_timestamp();
  with gone as (
    delete from sluice.batch_deltas d using sluice.batches b
    where b.id = any(v_ids) and d.tenant_id = b.tenant_id and d.batch_id = b.id returning d.*),
  sums as (select g.batch_id as id, sum(g.total) as total, sum(g.succeeded) as succeeded, sum(g.dead) as dead,
                  sum(g.cancelled) as cancelled,
                  sum(greatest(g.succeeded, 0) + greatest(g.dead, 0) + greatest(g.cancelled, 0)) as ended from gone g group by 1)
  update sluice.batches b set total = b.total + s.total, succeeded = b.succeeded + s.succeeded, dead = b.dead + s.dead,
    cancelled = b.cancelled + s.cancelled,
    recent = s.ended + b.recent * exp(-least(700, greatest(0, extract(epoch from v_now - b.recent_at)) / c_recent)),
    recent_at = v_now
  from sums s where b.id = s.id;

  select array_agg(b.id), array_agg(b.id) filter (where b.completed_at is null) into v_ended, v_new
  from sluice.batches b where b.id = any(v_ids) and b.sealed and b.succeeded + b.dead + b.cancelled >= b.total;
  -- repeated for a batch that had completed before: a redrive reopened it, and may have left keys since; it outlives all its tasks
  update sluice.batches b set completed_at = coalesce(b.completed_at, v_now),
    keys_until = v_now + make_interval(secs => x.seconds),
    kept_until = greatest(b.kept_until, v_now + make_interval(secs => greatest(x.seconds, 86400 * x.days)))
  from (select n.id, k.days, k.seconds
        from sluice.batches n
        cross join lateral (
          select max(greatest(q.succeeded_days, q.dead_days, q.cancelled_days)) as days,
                 max(q.idempotency_seconds) filter (where u.keyed) as seconds
          from (select n.queue_id as id, false as keyed
                union all
                select d.queue_id, true
                from (select distinct f.queue_id from sluice.followup_keys f where f.batch_id = n.id) d) u
          join sluice.queues q on q.id = u.id) k
        where n.id = any(v_ended)) x
  where b.id = x.id;
  return query
    with fired as (
      update sluice.batch_completions c set task_id = sluice.uuid7_v1()
      where c.batch_id = any(v_ended) and c.task_id is null
      returning c.*),
    enqueued as (
      insert into sluice.tasks (id, tenant_id, queue_id, state, priority, run_at, created_at, payload, options, completes)
      select f.task_id, q.tenant_id, f.queue_id, :state_ready, 0, v_now, v_now, f.payload,
        nullif(jsonb_strip_nulls(jsonb_build_object(
          'type', f.type, 'sealed', case when f.sealed_for is not null then true end, 'sealed_for', f.sealed_for)), '{}'), f.batch_id
      from fired f join sluice.queues q on q.id = f.queue_id
      returning queue_id, completes)
    select i.id, i.id = any(coalesce(v_new, '{}')),
           coalesce((select array_agg(e.queue_id) from enqueued e where e.completes = i.id), '{}')
    from unnest(v_ids) i(id);
  batch_id := null; completed := v_more; queues := null;
  return next;
end $$;
