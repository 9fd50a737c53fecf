-- Write the outcomes of a group of attempts, each by compare-and-set on its lease token; answers one row a token:
--   applied · repeat (this token has settled before: the first answer stands, nothing is written) · stale (the lease was
--   lost: the late outcome is recorded with its attempt, the task is untouched) · unknown (the task is past its retention).
-- What each kind does: numbers.py. A refund waits p_delays seconds where it has any; a hold lives p_delays seconds from now, and its
-- token settles it later.
-- The token is the only fence in the predicates: `state = :state_running` beside it makes the planner trust the statistics of a partial
-- index it believes empty. Whether the lease has run out is compared after the row lock.
create function sluice.settle_v1(
  p_ids uuid[], p_tokens uuid[], p_kinds smallint[], p_outcomes text[], p_reasons text[], p_delays double precision[],
  p_statuses integer[], p_messages text[], p_excerpts text[], p_results bytea[], p_formats text[], p_truncated boolean[],
  p_traces text[])
returns table (token uuid, verdict text) language plpgsql volatile
as $$
#variable_conflict use_column
declare v_now timestamptz; v_ended uuid[]; v_waiting uuid[]; v_n integer;
begin
  perform 1 from (select t.id from sluice.tasks t where t.id = any(p_ids) order by t.id for update) l;
  v_now := clock_timestamp();

  with gone as (
    delete from sluice.tasks t
    using unnest(p_ids, p_tokens, p_kinds, p_outcomes, p_reasons, p_statuses, p_messages, p_excerpts, p_results, p_formats,
                 p_truncated, p_traces)
      x(x_id, x_token, x_kind, x_outcome, x_reason, x_status, x_message, x_excerpt, x_result, x_format, x_truncated, x_trace)
    where t.id = x.x_id and t.lease_token = x.x_token and x.x_kind in (:kind_succeeded, :kind_dead)
      and t.lease_expires_at > v_now
    returning t.*, x.*),
  kept as (
    insert into sluice.task_history (
      id, kept_until, tenant_id, queue_id, handler_id, state, reason, ended_at, priority, run_at, created_at, expires_at,
      payload, type, headers, tags, correlation_id, idempotency_key, idempotency_until, unique_key, retry, max_attempts,
      timeout_seconds, traceparent, tracestate, root_id, parent_id, batch_id, completes, cursor, schedule, scheduled_for,
      schedule_timezone, progress, attempt, claims, last_error, result, result_format, result_truncated, lease_handler_id,
      last_token, last_counted, last_replica, last_started_at, last_ended_at, last_outcome, last_status, last_message, last_excerpt,
      last_trace_id)
    select
      t.id, greatest(v_now + make_interval(secs => 86400 * case t.x_kind
        when :kind_succeeded then q.succeeded_days else q.dead_days end), t.idempotency_until),
      t.tenant_id, t.queue_id, t.handler_id, case t.x_kind when :kind_succeeded then :state_succeeded else :state_dead end,
      t.x_reason, v_now, t.priority, t.run_at, t.created_at, t.expires_at, t.payload, t.type, t.headers, t.tags,
      t.correlation_id, t.idempotency_key, t.idempotency_until, t.unique_key, t.retry, t.max_attempts, t.timeout_seconds, t.traceparent, t.tracestate, t.root_id,
      t.parent_id, t.batch_id, t.completes, t.cursor, t.schedule, t.scheduled_for, t.schedule_timezone, t.progress,
      t.attempt, t.claims,
      coalesce(t.x_message, t.last_error), t.x_result, t.x_format, coalesce(t.x_truncated, false), t.lease_handler_id,
      t.last_token, true, t.last_replica, t.last_started_at, v_now, t.x_outcome, t.x_status, t.x_message, t.x_excerpt, t.x_trace
    from gone t join sluice.queues q on q.id = t.queue_id
    returning id, kept_until, claims, last_token, tenant_id, batch_id, state),
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
  select array_agg(k.last_token) into v_ended from kept k;

  if :kind_retry = any(p_kinds) or :kind_refund = any(p_kinds) then
    with back as (
      update sluice.tasks t set
        state = case when x.delay > 0 then :state_scheduled else :state_ready end,
        run_at = case when x.kind = :kind_retry or x.delay > 0 then v_now + make_interval(secs => greatest(x.delay, 0)) else t.run_at end,
        attempt = case when x.kind = :kind_refund then t.attempt - 1 else t.attempt end,
        last_error = coalesce(x.message, t.last_error),
        lease_token = null, lease_owner = null, lease_claim = null, lease_expires_at = null,
        last_counted = x.kind <> :kind_refund, last_ended_at = v_now, last_outcome = x.outcome, last_status = x.status,
        last_message = x.message, last_excerpt = x.excerpt, last_trace_id = x.trace
      from unnest(p_ids, p_tokens, p_kinds, p_outcomes, p_delays, p_statuses, p_messages, p_excerpts, p_traces)
        x(id, token, kind, outcome, delay, status, message, excerpt, trace)
      where t.id = x.id and t.lease_token = x.token and x.kind in (:kind_retry, :kind_refund) and t.lease_expires_at > v_now
      returning t.last_token)
    select array_agg(b.last_token) into v_waiting from back b;
  end if;

  if :kind_hold = any(p_kinds) then
    with held as (
      update sluice.tasks t set
        lease_expires_at = least(v_now + make_interval(secs => x.delay), t.last_started_at + interval '7 days'),
        lease_owner = null, last_outcome = 'held', last_status = x.status, last_excerpt = x.excerpt, last_trace_id = x.trace
      from unnest(p_ids, p_tokens, p_kinds, p_delays, p_statuses, p_excerpts, p_traces)
        x(id, token, kind, delay, status, excerpt, trace)
      where t.id = x.id and t.lease_token = x.token and x.kind = :kind_hold and t.last_outcome is distinct from 'held'
        and t.lease_expires_at > v_now
      returning t.last_token)
    select v_waiting || array_agg(h.last_token) into v_waiting from held h;
  end if;

  return query select a.token, 'applied' from unnest(v_ended || v_waiting) a(token);
  if coalesce(cardinality(v_ended), 0) + coalesce(cardinality(v_waiting), 0) < cardinality(p_tokens) then
    for v_n in select n from unnest(p_ids, p_tokens) with ordinality u(id, token, n)
                where u.token <> all(coalesce(v_ended || v_waiting, '{}')) order by u.id, u.n loop
      token := p_tokens[v_n];
      verdict := sluice.record_late_v1(p_ids[v_n], p_tokens[v_n], p_statuses[v_n], p_messages[v_n], p_excerpts[v_n]);
      return next;
    end loop;
  end if;
end $$;
