-- Write the outcomes of a group of attempts, each by compare-and-set on its lease token; returns one row per token:
-- applied · repeat (this token has settled before: the first answer stands, nothing is written) · stale (the lease was lost: the
-- late outcome is recorded with its attempt, the task is unchanged) · unknown (the task's retention has passed).
-- A row without a token says what call_back_v1 says, if any of these tasks called back.
-- kind: succeeded, retry, dead, refund (the attempt does not count, and the task is ready again, or after its delay), hold (the
-- handler has accepted the task and is still working: the lease lasts delay_seconds from now, and the token settles it later).
-- The token is the only fence in the predicates: adding `state = :state_running` makes the planner trust the statistics of a
-- partial index that it believes to be empty. Whether the lease has expired is checked after the row lock. Rows of tasks whose leases
-- are lost are not locked: a transaction of others that has replaced one of them with sluice.enqueue may last.
-- Tasks are found one by one by their id (offset 0), and written where they lie: locked, they do not move. Beside a held snapshot an
-- analyze finds few tasks in many pages, and a join by id would walk the whole index.
create function sluice.settle_v1(p_outcomes sluice.outcome_v1[])
returns table (token uuid, verdict text) language plpgsql volatile
as $$
#variable_conflict use_column
declare v_now timestamptz; v_kinds text[]; v_ended uuid[]; v_waiting uuid[]; v_outcome sluice.outcome_v1;
  v_flows boolean; v_called uuid[]; v_kept_until timestamptz[];
begin
  select bool_or(l.gated or l.flow_id is not null) into v_flows
  from (select t.gated, t.flow_id from sluice.tasks t where t.id = any(array(select o.task_id from unnest(p_outcomes) o))
          and t.lease_token = any(array(select o.token from unnest(p_outcomes) o))
        order by t.id for update) l;
  v_now := clock_timestamp();
  v_kinds := array(select distinct o.kind from unnest(p_outcomes) o);

  if v_flows then
    perform sluice.signal_flows_v1(array(
      select t.id from unnest(p_outcomes) o
      cross join lateral (
        select t.id from sluice.tasks t
        where t.id = o.task_id and t.lease_token = o.token and t.lease_expires_at > v_now offset 0) t
      where o.kind <> 'hold'));
  end if;
  with kept as (
    insert into sluice.task_history
    select h.*
    from unnest(p_outcomes) o
    cross join lateral (
      select t.ctid as tid from sluice.tasks t
      where t.id = o.task_id and t.lease_token = o.token and t.lease_expires_at > v_now offset 0) s
    join sluice.tasks t on t.ctid = s.tid
    join sluice.queues q on q.id = t.queue_id
    cross join lateral sluice.ended_v1(
      t, q, case o.kind when 'succeeded' then :state_succeeded else :state_dead end::smallint, o.reason, v_now, v_now, o) h
    where o.kind in ('succeeded', 'dead')
    returning id, kept_until, claims, last_token, tenant_id, batch_id, state, callback),
  gone as (delete from sluice.tasks t where t.id = any(array(select k.id from kept k))),
  counted as (
    insert into sluice.batch_deltas (tenant_id, batch_id, succeeded, dead)
    select k.tenant_id, k.batch_id, count(*) filter (where k.state = :state_succeeded), count(*) filter (where k.state = :state_dead)
    from kept k where k.batch_id is not null group by 1, 2),
  earlier as (
    delete from sluice.attempts a using kept k where a.task_id = k.id and k.claims > 1
    returning a.*, k.kept_until),
  moved as (
    insert into sluice.attempt_history (task_id, number, kept_until, token, counted, replica, started_at, ended_at, outcome,
                                        status, message, excerpt, trace_id)
    select task_id, number, kept_until, token, counted, replica, started_at, ended_at, outcome, status, message, excerpt,
           trace_id
    from earlier)
  select array_agg(k.last_token), array_agg(k.id) filter (where k.callback is not null),
         array_agg(k.kept_until) filter (where k.callback is not null)
    into v_ended, v_called, v_kept_until
  from kept k;
  if v_called is not null then
    return query select null::uuid, c.called::text from sluice.call_back_v1(v_called, v_kept_until) c(called);
  end if;

  if v_kinds && '{retry,refund}' then
    with back as (
      update sluice.tasks t set
        state = case when o.delay_seconds > 0 then :state_scheduled else :state_ready end,
        run_at = case when o.kind = 'retry' or o.delay_seconds > 0 then v_now + make_interval(secs => greatest(o.delay_seconds, 0))
                 else t.run_at end,
        attempt = case when o.kind = 'refund' then t.attempt - 1 else t.attempt end,
        last_error = coalesce(o.message, t.last_error),
        options = case when o.outcome = 'pushed_back' then sluice.pushed_back_v1(t.options, t.attempt, v_now) else t.options end,
        lease_token = null, lease_owner = null, lease_claim = null, lease_expires_at = null,
        last_counted = o.kind <> 'refund', last_ended_at = v_now, last_outcome = o.outcome, last_status = o.status,
        last_message = o.message, last_excerpt = o.excerpt, last_trace_id = o.trace_id
      from unnest(p_outcomes) o
      cross join lateral (
        select t.ctid as tid from sluice.tasks t
        where t.id = o.task_id and t.lease_token = o.token and t.lease_expires_at > v_now offset 0) s
      where t.ctid = s.tid and o.kind in ('retry', 'refund')
      returning t.last_token)
    select array_agg(b.last_token) into v_waiting from back b;
  end if;

  if 'hold' = any(v_kinds) then
    with held as (
      update sluice.tasks t set
        lease_expires_at = least(v_now + make_interval(secs => o.delay_seconds), t.last_started_at + interval '7 days'),
        lease_owner = null, last_outcome = 'held', last_status = o.status, last_excerpt = o.excerpt, last_trace_id = o.trace_id
      from unnest(p_outcomes) o
      cross join lateral (
        select t.ctid as tid from sluice.tasks t
        where t.id = o.task_id and t.lease_token = o.token and t.lease_expires_at > v_now offset 0) s
      where t.ctid = s.tid and o.kind = 'hold' and t.last_outcome is distinct from 'held'
      returning t.last_token)
    select v_waiting || array_agg(h.last_token) into v_waiting from held h;
  end if;

  return query select a.token, 'applied' from unnest(v_ended || v_waiting) a(token);
  if coalesce(cardinality(v_ended), 0) + coalesce(cardinality(v_waiting), 0) < cardinality(p_outcomes) then
    for v_outcome in select o.* from unnest(p_outcomes) o
                     where o.token <> all(coalesce(v_ended || v_waiting, '{}')) order by o.task_id loop
      token := v_outcome.token;
      verdict := sluice.record_late_v1(v_outcome);
      return next;
    end loop;
  end if;
end $$;
