-- Take the tenant's gate, and act on what was signalled and on timers that are due: flows that have tasks now, slots that came free.
-- The gate is an advisory lock that is tried and held until the transaction ends. Whoever has it decides alone for all of the tenant's
-- flows, by statements after it was taken, which see all that earlier holders did. got: false if another transaction has it.
-- more: signals are left, or timers that are due. opened: lanes with flows that were opened, [[queue, handler], …].
--
-- No wake-up is lost: whoever frees a slot or adds a task commits its signal with that. If a claim parks a flow and did not see the
-- change, it did not see the signal either, which was read before; so the signal is still there for the next holder of the gate.
-- Holds are deleted here alone, with the very signal that their run has ended, because it takes them to know what came free.
create function sluice.fold_flows_v1(p_tenant bigint, out got boolean, out more boolean, out opened jsonb) language plpgsql volatile
as $$
declare
  c_signals constant integer := 1000;
  v_rows tid[]; v_flows bigint[]; v_tasks uuid[]; v_claims integer[]; v_queues bigint[]; v_handlers bigint[]; v_keys text[]; v_new bigint[];
  v_buckets bigint[]; v_counts integer[]; v_locked integer; v_now timestamptz;
  v_until timestamptz := clock_timestamp() + interval '5 milliseconds';
begin
  more := true; opened := '[]';
  got := pg_try_advisory_xact_lock(:lock_gate, p_tenant::integer);
  while got and more loop
    select array_agg(s.ctid), array_agg(s.flow_id), array_agg(s.task_id), array_agg(s.claims), array_agg(s.queue_id),
           array_agg(s.handler_id), array_agg(s.key)
      into v_rows, v_flows, v_tasks, v_claims, v_queues, v_handlers, v_keys
    from (select s.ctid, s.* from sluice.flow_signals s where s.tenant_id = p_tenant
          order by s.tenant_id, s.transaction, s.flow_id, s.task_id limit c_signals) s;
    more := coalesce(cardinality(v_rows), 0) = c_signals;
    exit when v_rows is null;

    -- a queue whose first such tasks these are, if whoever inserted them could not say so
    select array_agg(q.id) into v_new from sluice.queues q
    where q.id = any(array(select distinct s.q from unnest(v_queues, v_flows) s(q, f) where s.f <> 0)) and not q.flows;
    if v_new is not null then
      select count(*) into v_locked
      from (select q.id from sluice.queues q where q.id = any(v_new) order by q.id for no key update skip locked) l;
      if v_locked < cardinality(v_new) then
        got := false;
        return;
      end if;
      update sluice.queues q set flows = true where q.id = any(v_new);
    end if;

    delete from sluice.flow_signals s where s.ctid = any(v_rows);
    with gone as (
      delete from sluice.holds h using unnest(v_tasks, v_claims) s(task_id, claims)
      where s.claims > 0 and h.task_id = s.task_id and h.claims > 0 and h.claims <= s.claims returning h.bucket_id),
    freed as (
      select g.bucket_id, count(*)::integer as n from gone g group by 1
      union all
      -- whatever happened to a task of an ordered key may be what others of that key wait for
      select distinct sluice.bucket_v1(l.id, s.key), c_signals
      from unnest(v_queues, v_keys) s(queue_id, key)
      join sluice.limits l on l.owner_id = s.queue_id and l.kind = 'queue_key' and l.ordered where s.key is not null)
    select array_agg(f.bucket_id), array_agg(f.n) into v_buckets, v_counts from freed f;

    insert into sluice.flows (id, tenant_id, queue_id, handler_id, plain, vt, clock)
    select sluice.hash_v1('plain ' || s.queue_id::text || ' ' || s.handler_id::text), p_tenant, s.queue_id, s.handler_id, true, 0, 0
    from (select distinct u.queue_id, u.handler_id from unnest(v_queues, v_handlers) u(queue_id, handler_id)) s
    on conflict do nothing;
    insert into sluice.flows as f (id, tenant_id, queue_id, handler_id, key, own_limits, weight, priority, vt)
    select s.id, p_tenant, s.queue_id, s.handler_id, h.key, h.own_limits, w.weight, h.priority, p.clock + 1 / w.weight
    from (select distinct u.id, u.queue_id, u.handler_id from unnest(v_flows, v_queues, v_handlers) u(id, queue_id, handler_id)
          where u.id <> 0) s
    cross join lateral (
      select t.priority, t.options ->> 'key' as key, t.options -> 'limits' as own_limits from sluice.tasks t
      where t.queue_id = s.queue_id and t.flow_id = s.id and t.state = :state_ready
        and (t.expires_at is null or t.expires_at > clock_timestamp())
      order by t.priority desc, t.run_at, t.id limit 1) h
    join sluice.flows p on p.id = sluice.hash_v1('plain ' || s.queue_id::text || ' ' || s.handler_id::text)
    cross join lateral (
      select coalesce((select k.weight from sluice.limits l join sluice.limit_keys k on k.limit_id = l.id and k.key = h.key
                       where l.owner_id = s.queue_id and l.kind = 'queue_key'), 1) as weight) w
    on conflict (id) do update set priority = excluded.priority where f.priority <> excluded.priority;
    if v_buckets is not null then
      opened := opened || sluice.open_flows_v1(v_buckets, v_counts);
    end if;
    exit when clock_timestamp() > v_until;
  end loop;
  if not got then return; end if;

  v_now := clock_timestamp();
  with due as (
    update sluice.rate_clocks r set open_at = null
    where r.bucket_id = any(array(
      select c.bucket_id from sluice.rate_clocks c
      where c.tenant_id = p_tenant and c.open_at <= v_now order by c.open_at limit c_signals))
    returning r.bucket_id, r.opens)
  select array_agg(d.bucket_id), array_agg(d.opens) into v_buckets, v_counts from due d;
  if v_buckets is not null then
    more := more or cardinality(v_buckets) = c_signals;
    opened := opened || sluice.open_flows_v1(v_buckets, v_counts);
  end if;
end $$;
