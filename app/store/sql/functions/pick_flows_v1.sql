-- Choose up to p_want ready tasks of a lane that is claimed through its tenant's gate, lock them, and take what they hold. The caller has
-- the gate (fold_flows_v1), and has found that the levels' limits leave room for p_want.
-- ids: the tasks in the order of claiming, tids: where they lie (claim_v1 says why), starts: when each starts, which is the instant that its rates were judged by, after the
-- count of what runs. again: some of them have run before. more: flows are left that may have tasks to claim;
-- blocked: none is, but some are parked. opened: lanes with flows that were opened, [[queue, handler], …].
--
-- Flows are served by start-time fair queuing (Goyal, Vin, Cheng 1996): the i-th task of a flow has the tag max(vt, V) + (i - 1) / weight,
-- the lane's clock V is the highest tag served, and tasks go in the order of (priority desc, tag), while every bucket has room for them.
-- A flow whose task does not find room is parked on the bucket, and nobody looks at it until a signal, a timer or a change opens it.
-- A bucket whose rate cannot pay for a task admits nobody until it can, so that a costly task is not overtaken by cheap ones.
-- Whatever room is left in a bucket at the end opens flows that are parked on it: the next claim goes on with those.
-- A flow of an ordered key has no other task to claim than the key's oldest unfinished one.
create function sluice.pick_flows_v1(
  p_tenant bigint, p_queue bigint, p_lane bigint, p_handler bigint, p_want integer,
  out ids uuid[], out tids tid[], out starts timestamptz[], out again boolean, out more boolean, out blocked boolean, out opened jsonb)
language plpgsql volatile
as $$
declare
  c_rounds constant integer := 4;
  c_bytes constant bigint := 1000000;  -- the gate is held until the answer is sent: no replica that stops reading may block its tenant
  c_gather constant double precision := 0.02;
  v_plain bigint := sluice.hash_v1('plain ' || p_queue::text || ' ' || p_lane::text);
  v_clock double precision; v_ordered bigint; v_flows bigint[]; v_seen bigint[] := '{}'; v_weights double precision; v_left integer;
  v_buckets bigint[]; v_limits bigint[]; v_rooms integer[]; v_tokens double precision[]; v_bursts double precision[]; v_units double precision[];
  v_orders boolean[]; v_open_at timestamptz[]; v_needs double precision[];
  v_tasks uuid[]; v_task_flows bigint[]; v_blocked bigint[]; v_blocked_on bigint[]; v_whole boolean; v_bytes bigint := 0;
  v_got uuid[]; v_got_tids tid[]; v_got_claims integer[]; v_got_flows bigint[]; v_got_tags double precision[]; v_tags double precision[]; v_again boolean; v_counts integer[];
  v_tats timestamptz[]; v_now timestamptz; v_fits boolean; v_place integer; h record;
begin
  ids := '{}'; tids := '{}'; starts := '{}'; again := false; opened := '[]';
  insert into sluice.flows (id, tenant_id, queue_id, handler_id, plain, vt, clock)
  values (v_plain, p_tenant, p_queue, p_lane, true, 0, 0) on conflict do nothing;
  select l.id into v_ordered from sluice.limits l where l.owner_id = p_queue and l.kind = 'queue_key' and l.ordered;

  for v_round in 1..c_rounds loop
    v_left := p_want - cardinality(ids);
    exit when v_left <= 0 or v_bytes > c_bytes;
    select array_agg(k.id) into v_flows
    from (select f.id from sluice.flows f
          where f.queue_id = p_queue and f.handler_id = p_lane and f.parked_on is null and not f.plain and f.id <> all(v_seen)
          order by f.priority desc, f.vt, f.id limit least(256, greatest(64, 2 * v_left))) k;
    select f.clock, case when f.parked_on is null and v_round = 1 then v_flows || v_plain else v_flows end into v_clock, v_flows
    from sluice.flows f where f.id = v_plain;
    exit when v_flows is null;
    v_seen := v_seen || v_flows;

    update sluice.flows f set buckets = b.buckets, limit_ids = b.limits, costs = b.costs
    from unnest(v_flows) i(id)
    cross join lateral (
      select coalesce(array_agg(x.bucket_id), '{}') as buckets, coalesce(array_agg(x.limit_id), '{}') as limits,
             coalesce(array_agg(x.cost), '{}') as costs
      from sluice.flows g cross join lateral sluice.flow_buckets_v1(p_tenant, p_queue, p_handler, g.key, g.own_limits) x
      where g.id = i.id and g.buckets is null) b
    where f.id = i.id and f.buckets is null;
    -- in the order of their ids, by which the tasks below number them
    select array_agg(s.bucket_id order by s.bucket_id), array_agg(s.limit_id order by s.bucket_id), array_agg(s.room order by s.bucket_id),
           array_agg(case when s.unit_seconds is not null then 0::double precision end order by s.bucket_id),
           array_agg(s.tat order by s.bucket_id), array_agg(s.burst order by s.bucket_id),
           array_agg(s.unit_seconds order by s.bucket_id), array_agg(s.ordered order by s.bucket_id),
           array_agg(s.open_at order by s.bucket_id), array_agg(null::double precision)
      into v_buckets, v_limits, v_rooms, v_tokens, v_tats, v_bursts, v_units, v_orders, v_open_at, v_needs
    from sluice.bucket_states_v1(
      array(select u.b from sluice.flows f cross join lateral unnest(f.buckets) u(b) where f.id = any(v_flows)),
      array(select u.l from sluice.flows f cross join lateral unnest(f.limit_ids) u(l) where f.id = any(v_flows)), clock_timestamp(), ids) s;
    -- after what runs was counted: a task that had not ended yet, for that count, must not end before these start
    v_now := clock_timestamp();
    for i in 1..coalesce(cardinality(v_buckets), 0) loop
      if v_tokens[i] is not null and (v_open_at[i] is null or v_open_at[i] <= v_now) then
        v_tokens[i] := greatest(0, v_bursts[i] - greatest(0, coalesce(extract(epoch from v_tats[i] - v_now), 0)) / v_units[i]);
      end if;
    end loop;
    select sum(f.weight) into v_weights from sluice.flows f where f.id = any(v_flows);

    v_tasks := '{}'; v_task_flows := '{}'; v_tags := '{}'; v_blocked := '{}'; v_blocked_on := '{}'; v_whole := true;
    for h in
      with uses as (
        select f.id, u.cost, n.place
        from sluice.flows f cross join lateral unnest(f.buckets, f.costs) u(bucket, cost)
        join unnest(v_buckets) with ordinality n(bucket, place) on n.bucket = u.bucket
        where f.id = any(v_flows)),
      sums as (select u.id, array_agg(u.place::integer) as places, array_agg(u.cost) as costs from uses u group by u.id)
      select f.id as flow, t.id as task, t.priority, t.n, t.bytes, greatest(f.vt, v_clock) + (t.n - 1) / f.weight as tag,
             coalesce(s.places, '{}') as places, coalesce(s.costs, '{}') as costs, f.key
      from (select f.*, least(v_left, 1 + ceil(2 * v_left * f.weight / v_weights))::integer as quantum
            from sluice.flows f where f.id = any(v_flows)) f
      left join sums s on s.id = f.id
      cross join lateral (
        (select t.id, t.priority, t.run_at, row_number() over (order by t.priority desc, t.run_at, t.id) as n, octet_length(t.payload) as bytes
         from sluice.tasks t
         where not f.plain and (v_ordered is null or f.key is null) and t.queue_id = p_queue and t.flow_id = f.id
           and t.state = :state_ready and (t.expires_at is null or t.expires_at > v_now)
         order by t.priority desc, t.run_at, t.id limit f.quantum)
        union all
        (select t.id, t.priority, t.run_at, row_number() over (order by t.priority desc, t.run_at, t.id), octet_length(t.payload)
         from sluice.tasks t
         where f.plain and t.queue_id = p_queue and t.handler_id = p_lane and t.flow_id is null
           and t.state = :state_ready and (t.expires_at is null or t.expires_at > v_now)
         order by t.priority desc, t.run_at, t.id limit f.quantum)
        union all
        -- null where the oldest is another flow's, or not ready: then order blocks the flow
        (select case when t.flow_id = f.id and t.state = :state_ready and (t.expires_at is null or t.expires_at > v_now) then t.id end,
                f.priority, t.run_at, 1, octet_length(t.payload)
         from sluice.tasks t
         where not f.plain and v_ordered is not null and t.queue_id = p_queue and t.options ->> 'key' = f.key
           and t.flow_id is not null and t.claims >= 0
         order by t.created_at, t.id limit 1)) t
      order by t.priority desc, tag, t.run_at, t.n, f.id
    loop
      if cardinality(v_tasks) = v_left or v_bytes > c_bytes then
        v_whole := false;
        exit;
      end if;
      v_fits := true; v_place := null;
      if h.task is null then
        v_blocked := v_blocked || h.flow; v_blocked_on := v_blocked_on || sluice.bucket_v1(v_ordered, h.key);
        continue;
      end if;
      for i in 1..cardinality(h.places) loop
        v_place := h.places[i];
        if v_rooms[v_place] < 1 then
          v_fits := false;
        elsif v_tokens[v_place] < least(h.costs[i], v_bursts[v_place]) then
          v_fits := false;
          -- of the first that it cannot pay for; the others find it closed
          v_needs[v_place] := coalesce(v_needs[v_place], least(h.costs[i], v_bursts[v_place])); v_tokens[v_place] := 0;
        end if;
        exit when not v_fits;
      end loop;
      if not v_fits then
        v_blocked := v_blocked || h.flow; v_blocked_on := v_blocked_on || v_buckets[v_place];
        continue;
      end if;
      v_tasks := v_tasks || h.task; v_task_flows := v_task_flows || h.flow; v_tags := v_tags || h.tag; v_bytes := v_bytes + h.bytes;
      for i in 1..cardinality(h.places) loop
        v_place := h.places[i];
        v_rooms[v_place] := v_rooms[v_place] - 1;
        v_tokens[v_place] := v_tokens[v_place] - least(h.costs[i], v_bursts[v_place]);
        if v_rooms[v_place] = 0 then
          v_blocked := v_blocked || h.flow; v_blocked_on := v_blocked_on || v_buckets[v_place];
        end if;
      end loop;
    end loop;

    -- state + 0: not the predicate of an index that statistics believe to be small
    select array_agg(c.id order by c.n), array_agg(l.tid order by c.n), array_agg(l.claims order by c.n), array_agg(c.flow order by c.n),
           array_agg(c.tag order by c.n), bool_or(l.claims > 0)
      into v_got, v_got_tids, v_got_claims, v_got_flows, v_got_tags, v_again
    from unnest(v_tasks, v_task_flows, v_tags) with ordinality c(id, flow, tag, n)
    cross join lateral (
      select t.ctid as tid, t.claims from sluice.tasks t
      where t.id = c.id and t.state + 0 = :state_ready and coalesce(t.flow_id, v_plain) = c.flow and t.handler_id = p_lane
      for update skip locked) l;
    ids := ids || coalesce(v_got, '{}'); tids := tids || coalesce(v_got_tids, '{}');
    starts := starts || array_fill(v_now, array[coalesce(cardinality(v_got), 0)]); again := again or coalesce(v_again, false);

    insert into sluice.holds as o (bucket_id, task_id, claims, limit_id)
    select u.bucket, g.task, g.claims + 1, u.limit_id
    from unnest(v_got, v_got_claims, v_got_flows) g(task, claims, flow) join sluice.flows f on f.id = g.flow
    cross join lateral unnest(f.buckets, f.limit_ids) u(bucket, limit_id)
    join sluice.limits l on l.id = u.limit_id and l.kind in ('named', 'queue_key')
    on conflict (bucket_id, task_id) do update set claims = excluded.claims where o.claims < excluded.claims;
    insert into sluice.rate_clocks as r (bucket_id, tenant_id, limit_id, tat, unit_seconds)
    select b.bucket, p_tenant, b.limit_id, v_now + ceil(1e6 * x.used * b.unit) * interval '1 microsecond', b.unit
    from unnest(v_buckets, v_limits, v_units, v_bursts) b(bucket, limit_id, unit, burst)
    join (select u.bucket, sum(u.cost) as used, array_agg(u.cost) as each
          from unnest(v_got_flows) g(flow) join sluice.flows f on f.id = g.flow
          cross join lateral unnest(f.buckets, f.costs) u(bucket, cost) group by 1) s on s.bucket = b.bucket
    cross join lateral (select sum(least(c, b.burst)) as used from unnest(s.each) c) x
    where b.unit is not null
    on conflict (bucket_id) do update set
      tat = greatest(r.tat, v_now) + (excluded.tat - v_now), unit_seconds = excluded.unit_seconds;

    -- a bucket that cannot pay is closed until it can, and for a moment longer if its burst has place for what comes meanwhile; also one
    -- that has paid for the last, as others may be parked on it. limit: exists() may be planned as a scan of all flows
    insert into sluice.rate_clocks as r (bucket_id, tenant_id, limit_id, tat, unit_seconds, open_at, opens)
    select b.bucket, p_tenant, b.limit_id, v_now, b.unit,
           v_now + ceil(1e6 * greatest(0, extract(epoch from greatest(c.tat, v_now) - v_now) - (b.burst - x.units) * b.unit) + 1)
             * interval '1 microsecond', greatest(1, floor(x.units))::integer
    from unnest(v_buckets, v_limits, v_units, v_bursts, v_needs, v_tokens, v_open_at) b(bucket, limit_id, unit, burst, need, tokens, open_at)
    cross join lateral (select greatest(coalesce(b.need, 1), least(b.burst / 2, c_gather / b.unit)) as units) x
    left join sluice.rate_clocks c on c.bucket_id = b.bucket
    where (b.need is not null or b.tokens < 1 and (select true from sluice.flows f where f.parked_on = b.bucket limit 1))
      and (b.open_at is null or b.open_at <= v_now)
    on conflict (bucket_id) do update set open_at = excluded.open_at, opens = excluded.opens;

    update sluice.flows f set
      vt = case when g.n is null then f.vt else greatest(f.vt, v_clock) + g.n / f.weight end,
      priority = coalesce(p.priority, f.priority),
      parked_on = b.bucket, parked_limit = l.id
    from unnest(v_flows) i(id)
    left join (select x.flow, count(*) as n from unnest(v_got_flows) x(flow) group by 1) g on g.flow = i.id
    left join (select distinct on (x.flow) x.flow, x.bucket from unnest(v_blocked, v_blocked_on) x(flow, bucket) order by x.flow) b
      on b.flow = i.id
    left join lateral (
      select t.priority from sluice.tasks t
      where g.n is not null and i.id <> v_plain and t.queue_id = p_queue and t.flow_id = i.id and t.state = :state_ready
        and (t.expires_at is null or t.expires_at > v_now) and t.id <> all(ids)
      order by t.priority desc, t.run_at, t.id limit 1) p on true
    left join lateral (select x.id from unnest(v_buckets, v_limits) x(bucket, id) where x.bucket = b.bucket) l on true
    where f.id = i.id and (g.n is not null or b.flow is not null);
    -- what was chosen but could not be locked is given back
    select array_agg(b.bucket), array_agg(least(b.room + coalesce(s.n, 0), floor(b.tokens), 1000)::integer) into v_buckets, v_counts
    from unnest(v_buckets, v_rooms, v_tokens, v_needs, v_orders) b(bucket, room, tokens, need, ordered)
    left join (
      select u.bucket, count(*)::integer as n
      from unnest(v_tasks, v_task_flows) c(id, flow) join sluice.flows f on f.id = c.flow cross join lateral unnest(f.buckets) u(bucket)
      where not c.id = any(ids) group by 1) s on s.bucket = b.bucket
    where b.need is null and not b.ordered and coalesce(b.room + coalesce(s.n, 0), 1) > 0 and coalesce(b.tokens, 1) >= 1;
    -- read without a lock: a task that another transaction has locked, which may change nothing, is still a task
    delete from sluice.flows f
    where f.id = any(v_flows) and f.id <> v_plain and (f.id = any(v_got_flows) or v_whole and not f.id = any(v_blocked))
      and not exists (
        select from sluice.tasks t
        where t.queue_id = p_queue and t.flow_id = f.id and t.state = :state_ready
          and (t.expires_at is null or t.expires_at > v_now) and t.id <> all(ids));
    update sluice.flows f set clock = greatest(f.clock, (select max(x) from unnest(v_got_tags) x)) where f.id = v_plain and v_got is not null;

    if v_buckets is not null then
      opened := opened || sluice.open_flows_v1(v_buckets, v_counts);
    end if;
  end loop;

  more := exists (select from sluice.flows f where f.queue_id = p_queue and f.handler_id = p_lane and f.parked_on is null and not f.plain)
    or exists (select from sluice.flows f where f.id = v_plain and f.parked_on is null) and exists (
      select from sluice.tasks t
      where t.queue_id = p_queue and t.handler_id = p_lane and t.flow_id is null and t.state = :state_ready
        and (t.expires_at is null or t.expires_at > clock_timestamp()) and t.id <> all(ids));
  blocked := exists (select from sluice.flows f where f.queue_id = p_queue and f.handler_id = p_lane and f.parked_on is not null);
end $$;
