-- Lease up to p_want ready tasks of one lane, (queue, own handler or 0), and say why there are no more.
-- The last row has the verdict and no task: ok (as many as wanted), empty, full (a limit), busy (another claim or a change holds a
-- lock: try again in milliseconds), paused, disabled, worker (the queue has no handler), push (it has one, but a pull worker asks),
-- gone, late. full_at says which limit is full: tenant, handler (then with its id) or queue.
-- lapsed: the tenant's id, if the claim got less than it wanted while expired leases of the tenant are not reaped yet: reap them
-- and claim again. A claim neither takes nor ignores such rows itself: a holder may be renewing one just in time, and counting
-- without its lock would admit another task above the limit.
-- A pull lease lasts as long as requested; one for a call, as long as the call may take.
--
-- Limits are exact because the shared advisory locks come first, the definitions are read in a later statement, the rows of limited
-- levels are locked, and only then, in yet another statement, the running rows are counted. Locking and counting in one statement
-- would admit tasks above the limit, because its snapshot is older than its lock. Every change of a pause, an enabled flag or a
-- limit takes the same advisory lock exclusively, so no claim in flight outruns it.
create function sluice.claim_v1(
  p_queue bigint, p_lane bigint, p_want integer, p_owner uuid, p_replica text, p_claim uuid, p_not_after timestamptz,
  p_lease_seconds double precision, p_pull boolean)
returns table (
  verdict text, queue_version bigint, handler_id bigint, handler_version bigint,
  task_id uuid, token uuid, lease_expires_at timestamptz, started_at timestamptz, run_at timestamptz, number integer,
  attempt integer, priority smallint, payload bytea, options jsonb, created_at timestamptz, batch_id uuid, full_at text,
  lapsed bigint)
language plpgsql volatile
as $$
#variable_conflict use_column
declare
  v_handler bigint; v_tenant bigint; v_room integer := p_want; v_left integer; v_now timestamptz; v_ids uuid[]; v_again boolean; s record;
begin
  select coalesce(nullif(p_lane, 0), q.handler_id), q.tenant_id into v_handler, v_tenant
  from sluice.queues q where q.id = p_queue and q.deleted_at is null;
  if not found then verdict := 'gone'; return next; return; end if;

  perform pg_advisory_xact_lock_shared(:lock_tenant, v_tenant::integer);
  if v_handler is not null then perform pg_advisory_xact_lock_shared(:lock_handler, v_handler::integer); end if;
  perform pg_advisory_xact_lock_shared(:lock_queue, p_queue::integer);

  select q.paused, q.max_concurrency as queue_limit, q.version as queue_version, q.timeout_seconds as queue_timeout,
         coalesce(nullif(p_lane, 0), q.handler_id) as handler_id, least(n.max_concurrency, n.granted_max_concurrency) as tenant_limit,
         h.enabled and h.deleted_at is null as enabled, h.max_concurrency as handler_limit, h.version as handler_version, h.timeout_seconds as handler_timeout
    into s
  from sluice.queues q join sluice.tenants n on n.id = q.tenant_id
  left join sluice.handlers h on h.id = coalesce(nullif(p_lane, 0), q.handler_id)
  where q.id = p_queue and q.deleted_at is null;
  verdict := case
    when not found then 'gone'
    when s.handler_id is distinct from v_handler then 'busy'
    when clock_timestamp() > p_not_after then 'late'
    when s.paused then 'paused'
    when p_pull and v_handler is not null then 'push'
    when not p_pull and v_handler is null then 'worker'
    when not s.enabled then 'disabled' end;
  if verdict is not null then return next; return; end if;

  if s.tenant_limit is not null then
    perform 1 from sluice.tenants n where n.id = v_tenant for no key update skip locked;
    if not found then verdict := 'busy'; return next; return; end if;
  end if;
  if s.handler_limit is not null then
    perform 1 from sluice.handlers h where h.id = v_handler for no key update skip locked;
    if not found then verdict := 'busy'; return next; return; end if;
  end if;
  if s.queue_limit is not null then
    perform 1 from sluice.queues q where q.id = p_queue for no key update skip locked;
    if not found then verdict := 'busy'; return next; return; end if;
  end if;
  if s.tenant_limit is not null then
    v_left := s.tenant_limit - (select count(*) from sluice.tasks t where t.state = :state_running and t.tenant_id = v_tenant)::integer;
    if v_left < v_room then v_room := v_left; full_at := 'tenant'; end if;
  end if;
  if s.handler_limit is not null then
    v_left := s.handler_limit
      - (select count(*) from sluice.tasks t where t.state = :state_running and t.tenant_id = v_tenant
                                                and t.lease_handler_id = v_handler)::integer;
    if v_left < v_room then v_room := v_left; full_at := 'handler'; end if;
  end if;
  if s.queue_limit is not null then
    v_left := s.queue_limit
      - (select count(*) from sluice.tasks t where t.state = :state_running and t.tenant_id = v_tenant and t.queue_id = p_queue)::integer;
    if v_left < v_room then v_room := v_left; full_at := 'queue'; end if;
  end if;
  if v_room <= 0 then
    verdict := 'full'; handler_id := v_handler;
    lapsed := (select t.tenant_id from sluice.tasks t
               where t.state = :state_running and t.tenant_id = v_tenant and t.lease_expires_at <= statement_timestamp()
               order by t.lease_expires_at limit 1);
    return next; return;
  end if;

  -- pick first, then record and update: each statement sees the rows as they were locked
  select array_agg(k.id), bool_or(k.claims > 0) into v_ids, v_again
  from (select t.id, t.claims from sluice.tasks t
        where t.queue_id = p_queue and t.handler_id = p_lane and t.state = :state_ready
          and (t.expires_at is null or t.expires_at > clock_timestamp())
        order by t.priority desc, t.run_at, t.id limit v_room for update skip locked) k;
  if v_again then
    insert into sluice.attempts (task_id, number, token, counted, replica, started_at, ended_at, outcome, status, message,
                                 excerpt, trace_id)
    select t.id, t.claims, t.last_token, t.last_counted, t.last_replica, t.last_started_at, t.last_ended_at, t.last_outcome,
           t.last_status, t.last_message, t.last_excerpt, t.last_trace_id
    from sluice.tasks t where t.id = any(v_ids) and t.claims > 0;
  end if;
  v_now := clock_timestamp();
  return query
    update sluice.tasks t set
      state = :state_running, attempt = t.attempt + 1, claims = t.claims + 1,
      lease_token = g.token, lease_owner = p_owner, lease_claim = p_claim, lease_handler_id = v_handler,
      lease_expires_at = v_now + make_interval(secs => case when p_pull then p_lease_seconds else greatest(5, least(
        p_lease_seconds, coalesce((t.options ->> 'timeout_seconds')::double precision, s.queue_timeout, s.handler_timeout) + 5)) end),
      last_token = g.token, last_counted = true, last_replica = p_replica, last_started_at = v_now, last_ended_at = null,
      last_outcome = null, last_status = null, last_message = null, last_excerpt = null, last_trace_id = null
    from (select i.id, gen_random_uuid() as token from unnest(v_ids) i(id) offset 0) g
    where t.id = g.id
    returning null::text, s.queue_version, v_handler, s.handler_version, t.id, t.lease_token, t.lease_expires_at, v_now, t.run_at,
      t.claims, t.attempt, t.priority, t.payload, t.options, t.created_at,
      coalesce(t.batch_id, t.completes), null::text, null::bigint;
  verdict := case
    when coalesce(cardinality(v_ids), 0) < v_room then 'empty'
    when v_room < p_want then 'full'
    else 'ok' end;
  if verdict <> 'ok' then
    lapsed := (select t.tenant_id from sluice.tasks t
               where t.state = :state_running and t.tenant_id = v_tenant and t.lease_expires_at <= statement_timestamp()
               order by t.lease_expires_at limit 1);
  end if;
  return next;
end $$;
