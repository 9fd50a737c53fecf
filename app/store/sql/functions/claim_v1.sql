-- Lease ready tasks of several lanes, (queue, own handler or 0, how many), and say of each lane why there are no more.
-- One row per leased task; n orders them by lane, and within each in the order of claiming. The last row has only `lanes`, one JSON
-- object per lane: count (its tasks), verdict, definitions, full_at, lapsed, limited. What is null in it is left out.
-- verdict: ok (as many as wanted), empty, full (a limit), busy (another claim or a change holds a lock: try again in milliseconds),
-- paused, disabled, parked (until opens_in seconds from now), breaker_open, worker (the queue has no handler), push (it has one, but
-- a pull worker asks), gone, late, forming (the handler takes groups, and the next one may wait for more tasks; forms_in: for so many
-- seconds).
-- group: how many tasks the handler takes in one call, if it takes groups. More are claimed in whole groups.
-- period: of the handler's health, if it has a breaker or an adaptive limit. half_open: its breaker admits a single probe.
-- full_at says which limit is full: tenant, handler, queue, or flows: named or keyed limits, or rates, block all of the lane's tasks,
-- and wait_seconds is when a rate of the tenant admits something again (null: none has to). limited: whether the lane has a limit at all.
-- opened: lanes of the tenant, [[queue, handler], …], in which this claim opened flows.
-- lapsed: the tenant's id, if the lane got less than it wanted while expired leases of its queue, or of the tenant where a limit
-- beyond the queue is full, are not reaped yet: reap them and claim again. A claim neither takes nor ignores such rows itself: a
-- holder may be renewing one just in time, and counting without its lock would admit another task above the limit.
-- While a transaction elsewhere holds back the vacuum, a scan steps over every task that was taken before. If a lane's scan takes
-- long, or starts at such a place, its object says where the last task was that it took: priority and since (its run_at).
-- With these, a claim starts there and finds nothing before it, nor does it look for lapsed leases: polls and the reaper do.
-- Lanes without limits, groups and flows are picked and leased together: with many of them, what each statement costs by itself is
-- most of a claim.
-- A lane with flows is claimed through its tenant's gate: fold_flows_v1 and pick_flows_v1 say how.
-- Tasks are leased where they lie (ctid): locked, they do not move. By their ids, the planner would walk the whole index where an
-- analyze has found few tasks in many pages, as it does beside a held snapshot.
-- A pull lease lasts as long as requested; one for a call, as long as the call may take.
--
-- Limits are exact because the shared advisory locks come first, the definitions are read in a later statement, the rows of limited
-- levels are locked, and only then, in yet another statement, the running rows are counted: those of earlier lanes of this claim
-- too, because a lane under limits is leased before the next one is counted. Locking and counting in one statement would admit tasks
-- above the limit, because its snapshot is older than its lock. Every change of a pause, an enabled flag or a limit takes the same
-- advisory lock exclusively, so no claim in flight outruns it.
-- No lock is ever waited for, so that no lane delays the others, and the order of lanes can deadlock with nobody. A change that
-- waits for its lock makes the next claims busy, so claims cannot keep it waiting.
create function sluice.claim_v1(
  p_lanes sluice.lane_v1[], p_owner uuid, p_replica text, p_claim uuid, p_not_after timestamptz, p_lease_seconds double precision,
  p_pull boolean)
returns table (
  n integer, task_id uuid, token uuid, lease_expires_at timestamptz, run_at timestamptz, number integer, attempt integer,
  payload bytea, options jsonb, created_at timestamptz, batch_id uuid, lanes jsonb)
language plpgsql volatile
as $$
#variable_conflict use_column
declare
  v_handlers bigint[]; v_locked boolean[]; v_turns sluice.turn_v1[] := '{}'; v_apart integer[] := '{}'; v_queues bigint[] := '{}';
  v_timeouts double precision[] := '{}';
  v_place integer; s sluice.turn_v1; v_left integer; v_filled integer; v_leased integer; v_began timestamptz; v_now timestamptz; v_secret bytea;
  v_ids uuid[]; v_tids tid[]; v_starts timestamptz[]; v_places integer[]; v_again boolean;
  v_fold record; v_pick record; v_scan record; v_lapsed bigint; v_said jsonb; v_told jsonb[] := '{}';
begin
  select array_agg(k.handler_id order by l.place), array_agg(k.locked order by l.place) into v_handlers, v_locked
  from unnest(p_lanes) with ordinality l(queue_id, handler_id, want, priority, since, place)
  left join lateral (
    select d.handler_id,
           pg_try_advisory_xact_lock_shared(:lock_tenant, d.tenant_id::integer)
           and (d.handler_id is null or pg_try_advisory_xact_lock_shared(:lock_handler, d.handler_id::integer))
           and pg_try_advisory_xact_lock_shared(:lock_queue, l.queue_id::integer) as locked
    from (select q.tenant_id, coalesce(nullif(l.handler_id, 0), q.handler_id) as handler_id
          from sluice.queues q where q.id = l.queue_id and q.deleted_at is null offset 0) d
    offset 0) k on true;

  for s in
    select l.place::integer, l.queue_id, l.lane,
           case when l.want > h.group_max_tasks then l.want - l.want % h.group_max_tasks else l.want end as want,
           l.priority, l.since, q.tenant_id, l.handler_id, q.version as queue_version, h.version as handler_version,
           coalesce(q.timeout_seconds, h.timeout_seconds) as timeout,
           least(n.max_concurrency, n.granted_max_concurrency) as tenant_limit,
           least(h.max_concurrency, h.effective_max_concurrency) as handler_limit, h.half_open,
           case when h.breaker is not null or h.adaptive is not null then h.period end as period,
           extract(epoch from h.parked_until - clock_timestamp())::double precision as opens_in,
           q.max_concurrency as queue_limit, h.group_max_tasks as group_tasks, h.group_wait_seconds as group_wait,
           coalesce(q.flows or n.flows or coalesce(h.flows, false), false) as gated,
           case
             when q.id is null then 'gone'
             when not l.locked or coalesce(nullif(l.lane, 0), q.handler_id) is distinct from l.handler_id then 'busy'
             when clock_timestamp() > p_not_after then 'late'
             when q.paused then 'paused'
             when p_pull and l.handler_id is not null then 'push'
             when not p_pull and l.handler_id is null then 'worker'
             when not h.enabled or h.deleted_at is not null then 'disabled'
             when h.parked_until > clock_timestamp() then 'parked'
             when h.effective_max_concurrency = 0 then 'breaker_open' end as verdict
    from unnest(p_lanes, v_handlers, v_locked)
      with ordinality l(queue_id, lane, want, priority, since, handler_id, locked, place)
    left join sluice.queues q on q.id = l.queue_id and q.deleted_at is null
    left join sluice.tenants n on n.id = q.tenant_id
    left join sluice.handlers h on h.id = l.handler_id
    order by l.place
  loop
    s.room := s.want; s.got := 0;
    -- a queue that comes twice, too: what a claim picked once, it must not pick again before it is leased
    s.apart := s.gated or (s.verdict is null and (
      coalesce(s.tenant_limit, s.handler_limit, s.queue_limit) is not null or coalesce(s.group_wait, 0) > 0
      or s.queue_id = any(v_queues)));
    v_queues := v_queues || s.queue_id;
    v_timeouts := v_timeouts || s.timeout;
    v_turns[s.place] := s;
    if s.apart then v_apart := v_apart || s.place; end if;
  end loop;

  -- 0: the plain lanes, all at once
  foreach v_place in array case when cardinality(v_apart) < cardinality(v_turns) then 0 || v_apart else v_apart end loop
    v_ids := '{}'; v_tids := '{}'; v_places := '{}'; v_starts := null; v_again := false; v_pick := null; s := v_turns[v_place];
    if v_place > 0 then
      if s.gated and coalesce(s.verdict, '') not in ('gone', 'busy', 'late') then
        -- whatever this lane's verdict: other lanes may wait for what was signalled
        select * into v_fold from sluice.fold_flows_v1(s.tenant_id);
        s.opened := v_fold.opened;
        if not v_fold.got then s.verdict := coalesce(s.verdict, 'busy'); end if;
      end if;
      if s.verdict is null and s.tenant_limit is not null then
        perform 1 from sluice.tenants n where n.id = s.tenant_id for no key update skip locked;
        if not found then s.verdict := 'busy'; end if;
      end if;
      if s.verdict is null and s.handler_limit is not null then
        perform 1 from sluice.handlers h where h.id = s.handler_id for no key update skip locked;
        if not found then s.verdict := 'busy'; end if;
      end if;
      if s.verdict is null and s.queue_limit is not null then
        perform 1 from sluice.queues q where q.id = s.queue_id for no key update skip locked;
        if not found then s.verdict := 'busy'; end if;
      end if;
      if s.verdict is null and s.tenant_limit is not null then
        v_left := s.tenant_limit
          - (select count(*) from sluice.tasks t where t.state = :state_running and t.tenant_id = s.tenant_id)::integer;
        if v_left < s.room then s.room := v_left; s.full_at := 'tenant'; end if;
      end if;
      if s.verdict is null and s.handler_limit is not null then
        v_left := s.handler_limit
          - (select count(*) from sluice.tasks t where t.state = :state_running and t.tenant_id = s.tenant_id
                                                    and t.lease_handler_id = s.handler_id)::integer;
        if v_left < s.room then s.room := v_left; s.full_at := 'handler'; end if;
      end if;
      if s.verdict is null and s.queue_limit is not null then
        v_left := s.queue_limit
          - (select count(*) from sluice.tasks t where t.state = :state_running and t.tenant_id = s.tenant_id
                                                    and t.queue_id = s.queue_id)::integer;
        if v_left < s.room then s.room := v_left; s.full_at := 'queue'; end if;
      end if;
      if s.verdict is null and s.room > 0 and s.group_wait > 0 then
        select f.filled, f.forms_in into v_filled, s.forms_in from sluice.forming_v1(
          s.queue_id, s.lane, s.gated, least(s.group_tasks, s.tenant_limit, s.handler_limit, s.queue_limit), s.group_wait,
          s.want) f;
        if s.forms_in is not null and v_filled = 0 then
          s.verdict := 'forming';
        elsif s.forms_in is not null then
          s.want := least(s.want, v_filled); s.room := least(s.room, s.want);
        end if;
      end if;
      v_turns[v_place] := s;
    end if;

    -- pick first, then record and update: each statement sees the rows as they were locked
    v_began := clock_timestamp();
    if s.gated and s.verdict is null and s.room > 0 then
      select * into v_pick from sluice.pick_flows_v1(s.tenant_id, s.queue_id, s.lane, s.handler_id, s.room);
      v_ids := v_pick.ids; v_tids := v_pick.tids; v_starts := v_pick.starts; v_again := v_pick.again;
      v_places := array_fill(v_place, array[cardinality(v_ids)]);
      s.opened := coalesce(s.opened, '[]') || v_pick.opened; s.got := cardinality(v_ids);
      if s.got < s.room then
        s.verdict := case when v_pick.more or v_fold.more then 'ok' when v_pick.blocked then 'full' else 'empty' end;
        if s.verdict = 'full' then
          s.full_at := 'flows';
          s.wait_seconds := (select extract(epoch from min(r.open_at) - clock_timestamp()) from sluice.rate_clocks r
                             where r.tenant_id = s.tenant_id and r.open_at is not null);
        end if;
      end if;
      v_turns[v_place] := s;
    elsif v_place = 0 or not s.gated then
      for v_scan in
        select l.place, k.ids, k.tids, k.again, k.ended
        from unnest(v_turns) l
        cross join lateral (
          select array_agg(k.id) as ids, array_agg(k.tid) as tids, bool_or(k.claims > 0) as again, clock_timestamp() as ended
          from (select k.id, k.tid, k.claims
                from (select t.id, t.ctid as tid, t.claims from sluice.tasks t
                      where l.since is not null and t.queue_id = l.queue_id and t.handler_id = l.lane and t.state = :state_ready
                        and t.flow_id is null and t.priority = l.priority and t.run_at >= l.since
                        and (t.expires_at is null or t.expires_at > clock_timestamp())
                      order by t.priority desc, t.run_at, t.id limit l.room for update skip locked) k
                union all
                select k.id, k.tid, k.claims
                from (select t.id, t.ctid as tid, t.claims from sluice.tasks t
                      where t.queue_id = l.queue_id and t.handler_id = l.lane and t.state = :state_ready
                        and t.flow_id is null and t.priority < coalesce(l.priority, 32767)
                        and (t.expires_at is null or t.expires_at > clock_timestamp())
                      order by t.priority desc, t.run_at, t.id limit l.room for update skip locked) k
                limit l.room) k
          offset 0) k
        where l.verdict is null and l.room > 0 and case when v_place = 0 then not l.apart else l.place = v_place end
      loop
        if v_scan.ids is not null then
          s := v_turns[v_scan.place];
          s.got := cardinality(v_scan.ids);
          v_ids := v_ids || v_scan.ids; v_tids := v_tids || v_scan.tids;
          v_places := v_places || array_fill(v_scan.place, array[s.got]);
          v_again := v_again or v_scan.again;
          if s.since is not null or v_scan.ended - v_began > interval '3 milliseconds' then
            select t.priority, t.run_at into s.last_priority, s.last_run_at
            from sluice.tasks t where t.id = v_ids[cardinality(v_ids)];
          end if;
          v_turns[v_scan.place] := s;
        end if;
        v_began := v_scan.ended;
      end loop;
      if s.group_wait > 0 and cardinality(v_ids) between 1 and s.room - 1 then
        -- another claim took some of those that were to fill the groups: what is left of the last one goes on waiting
        v_filled := cardinality(v_ids) - cardinality(v_ids) % least(s.group_tasks, s.handler_limit, s.queue_limit, s.tenant_limit);
        if (select min(t.run_at) from sluice.tasks t where t.id = any(v_ids[v_filled + 1:]))
           > clock_timestamp() - make_interval(secs => s.group_wait) then
          v_ids := v_ids[:v_filled]; v_tids := v_tids[:v_filled]; v_places := v_places[:v_filled];
          s.got := v_filled; s.verdict := 'busy'; v_turns[v_place] := s;
        end if;
      end if;
    end if;
    if v_again then
      insert into sluice.attempts (task_id, number, token, counted, replica, started_at, ended_at, outcome, status, message,
                                   excerpt, trace_id)
      select t.id, t.claims, t.last_token, t.last_counted, t.last_replica, t.last_started_at, t.last_ended_at, t.last_outcome,
             t.last_status, t.last_message, t.last_excerpt, t.last_trace_id
      from sluice.tasks t where t.id = any(v_ids) and t.claims > 0;
    end if;
    if v_ids <> '{}' then
      v_now := clock_timestamp();
      -- tokens are made from one secret per claim: asking for a random one per task takes a quarter of the claim's time
      v_secret := coalesce(v_secret, uuid_send(gen_random_uuid()));
      return query
        update sluice.tasks t set
          state = :state_running, gated = s.gated, attempt = t.attempt + 1, claims = t.claims + 1,
          lease_token = g.token, lease_owner = p_owner, lease_claim = p_claim, lease_handler_id = v_handlers[g.place],
          lease_expires_at = g.at + make_interval(secs => case when p_pull then p_lease_seconds else greatest(5, least(
            p_lease_seconds, coalesce((t.options ->> 'timeout_seconds')::double precision, v_timeouts[g.place]) + 5)) end),
          last_token = g.token, last_counted = true, last_replica = p_replica, last_started_at = g.at, last_ended_at = null,
          last_outcome = null, last_status = null, last_message = null, last_excerpt = null, last_trace_id = null
        from (select i.tid, i.place, i.place * 65536 + i.n as n, coalesce(i.at, v_now) as at,
                     encode(substr(sha256(v_secret || uuid_send(i.id)), 1, 16), 'hex')::uuid as token
              from unnest(v_ids, v_tids, v_places, v_starts) with ordinality i(id, tid, place, at, n) offset 0) g
        where t.ctid = g.tid
        returning g.n::integer, t.id, t.lease_token, t.lease_expires_at, t.run_at, t.claims, t.attempt, t.payload, t.options, t.created_at,
          coalesce(t.batch_id, t.completes), null::jsonb;
      get diagnostics v_leased = row_count;
      if v_leased <> cardinality(v_ids) then
        -- the answer is cut into lanes by their counts: one task less would hand those behind it to other lanes' handlers
        raise exception 'leased % of % tasks', v_leased, cardinality(v_ids);
      end if;
    end if;
  end loop;

  foreach s in array v_turns loop
    s.verdict := case
      when s.verdict is not null then s.verdict
      when s.room > 0 and s.got < s.room then 'empty'
      when s.room < s.want then 'full'
      else 'ok' end;
    if s.verdict in ('empty', 'full') and s.since is null then
      v_lapsed := case
        when s.full_at in ('tenant', 'handler', 'flows') then (
          select t.tenant_id from sluice.tasks t
          where t.state = :state_running and t.tenant_id = s.tenant_id and t.lease_expires_at <= statement_timestamp() limit 1)
        else (
          select t.tenant_id from sluice.tasks t
          where t.state = :state_running and t.tenant_id = s.tenant_id and t.queue_id = s.queue_id
            and t.lease_expires_at <= statement_timestamp() limit 1) end;
    else
      v_lapsed := null;
    end if;
    v_said := jsonb_build_object(
      'count', s.got, 'verdict', s.verdict, 'queue_version', coalesce(s.queue_version, 0), 'handler_id', coalesce(s.handler_id, 0),
      'handler_version', coalesce(s.handler_version, 0));
    -- building an object of many keys takes as long as claiming a task, and a plain lane needs none of these
    if s.apart or coalesce(v_lapsed, s.period, s.last_priority, s.group_tasks) is not null or s.verdict = 'parked' then
      v_said := v_said || jsonb_strip_nulls(jsonb_build_object(
        'full_at', s.full_at, 'lapsed', v_lapsed,
        'limited', s.gated or coalesce(s.tenant_limit, s.handler_limit, s.queue_limit) is not null,
        'priority', s.last_priority, 'since', s.last_run_at, 'group', s.group_tasks, 'forms_in', s.forms_in, 'period', s.period,
        'half_open', coalesce(s.half_open, false), 'opens_in', case when s.verdict = 'parked' then s.opens_in end,
        'wait_seconds', s.wait_seconds, 'opened', s.opened));
    end if;
    v_told := v_told || v_said;
  end loop;
  lanes := to_jsonb(v_told);
  return next;
end $$;
