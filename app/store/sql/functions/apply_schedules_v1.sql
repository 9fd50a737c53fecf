-- Write decisions for a group of schedules, each by compare-and-set on (version, seq): a decision depends on the schedule, its
-- ledger and its open runs, and every change of these increases one of the two. Returns the schedules that were written; for the
-- others the caller reads and decides again. Without p_wait, schedules locked by others are skipped.
--
-- A change: {"id", "version", "seq", "next", "look": instants or null, "runs", "missed": to be added, "failures": its new value,
--   "pause": reason or null, "extend": {"id", "until", "n"} of the ledger's newest row, "rows": [{"id", "at", "until", "n", "cause",
--   "extra", "outcome", "jitter", "overlap", "task", "payload": base64}], "starts": [{"id", "task"}] of waiting rows,
--   "ends": [{"id", "task", "outcome"}] of runs, "drop": whether waiting rows are dropped, "cancel": whether running ones are}
-- Order of locks (app/store/numbers.py): schedules by id, ledger rows, tasks, batches. Run row, task and next times are one transaction.
create function sluice.apply_schedules_v1(p_changes jsonb, p_replica text, p_wait boolean) returns setof bigint
language plpgsql volatile
as $$
declare
  v_ids bigint[]; v_changes jsonb; v_now timestamptz; v_dropped bigint[]; v_cancelled bigint[];
  v_runs uuid[]; v_tasks uuid[]; v_outcomes text[];
begin
  if p_wait then
    select array_agg(l.id) into v_ids
    from (select s.id from jsonb_to_recordset(p_changes) c(id bigint, version bigint, seq bigint)
          join sluice.schedules s on s.id = c.id where s.version = c.version and s.seq = c.seq
          order by s.id for no key update of s) l;
  else
    select array_agg(l.id) into v_ids
    from (select s.id from jsonb_to_recordset(p_changes) c(id bigint, version bigint, seq bigint)
          join sluice.schedules s on s.id = c.id where s.version = c.version and s.seq = c.seq
          order by s.id for no key update of s skip locked) l;
  end if;
  if v_ids is null then return; end if;
  select jsonb_agg(c) into v_changes from jsonb_array_elements(p_changes) c where (c ->> 'id')::bigint = any(v_ids);
  v_now := clock_timestamp();

  update sluice.schedules s set next_nominal_at = c.next, look_at = c.look, runs = s.runs + c.runs, missed = s.missed + c.missed,
    failures = c.failures, seq = s.seq + 1,
    paused = s.paused or c.pause is not null, paused_at = case when c.pause is not null then v_now else s.paused_at end,
    paused_reason = coalesce(c.pause, s.paused_reason),
    version = s.version + case when c.pause is not null then 1 else 0 end
  from jsonb_to_recordset(v_changes)
    c(id bigint, next timestamptz, look timestamptz, runs bigint, missed bigint, failures integer, pause text)
  where s.id = c.id;
  if v_changes @? '$[*] ? (@.pause != null)' then
    perform sluice.record_audit_v1(json_build_object(
      'tenant_id', s.tenant_id, 'actor', 'system', 'verb', 'pause', 'noun', 'schedule', 'name', s.name, 'outcome', 'done',
      'before', json_build_object('paused', false), 'after', json_build_object('paused', true, 'reason', c.pause), 'replica', p_replica))
    from jsonb_to_recordset(v_changes) c(id bigint, pause text) join sluice.schedules s on s.id = c.id where c.pause is not null;
  end if;

  -- Each part runs only if there is something to do, and starts from these few: while statistics are older than a burst of runs, the
  -- planner takes the indexes of open runs and open batches for empty, and would read them whole.
  select array_agg(c.id) filter (where c."drop"), array_agg(c.id) filter (where c.cancel) into v_dropped, v_cancelled
  from jsonb_to_recordset(v_changes) c(id bigint, "drop" boolean, cancel boolean);
  if v_dropped is not null then
    update sluice.schedule_runs r set outcome = 'dropped' where r.schedule_id = any(v_dropped) and r.outcome = 'waiting';
  end if;
  if v_cancelled is not null then
    select array_agg(r.task_id) into v_tasks from sluice.schedule_runs r
    where r.schedule_id = any(v_cancelled) and r.outcome = 'running';
    update sluice.batches b set cancelled_at = v_now, cancel_reason = 'superseded'
    where b.id = any(v_tasks) and b.cancelled_at is null and (b.completed_at is null) is true;
  end if;

  update sluice.schedule_runs r set nominal_until = e.until, count = r.count + e.n, kept_until = k.kept_until
  from jsonb_array_elements(v_changes) c
  cross join lateral jsonb_to_record(c -> 'extend') e(id uuid, until timestamptz, n bigint)
  join sluice.schedules s on s.id = (c ->> 'id')::bigint
  join sluice.queues q on q.id = s.queue_id
  cross join lateral (select greatest(v_now, e.until) + make_interval(secs => 86400 * q.dead_days) as kept_until) k
  where r.id = e.id;
  select array_agg(e.id), array_agg(e.task), array_agg(e.outcome) into v_runs, v_tasks, v_outcomes
  from jsonb_array_elements(v_changes) c cross join lateral jsonb_to_recordset(c -> 'ends') e(id uuid, task uuid, outcome text);
  if v_runs is not null then
    update sluice.schedule_runs r set outcome = e.outcome, completed_at = b.completed_at,
      started_at = (select min(k.at) from (
        select t.last_started_at as at from sluice.task_history t where t.id = e.task
        union all select t.last_started_at from sluice.tasks t where t.id = e.task) k)
    from unnest(v_runs, v_tasks, v_outcomes) e(id, task, outcome)
    join sluice.batches b on b.id = e.task
    where r.id = e.id and (r.outcome = 'running') is true;
    update sluice.batches b set run_open = false where b.id = any(v_tasks);
  end if;

  insert into sluice.schedule_runs (id, schedule_id, nominal_at, nominal_until, count, cause, extra, outcome, overlap, payload,
                                    jitter_seconds, fired_at, task_id, replica, kept_until)
  select r.id, s.id, r.at, r.until, r.n, r.cause, r.extra, r.outcome, r.overlap, decode(r.payload, 'base64'), r.jitter,
         case when r.task is not null then v_now end, r.task, case when r.task is not null then p_replica end,
         greatest(v_now, r.until) + make_interval(secs => 86400 * q.dead_days)
  from jsonb_array_elements(v_changes) c
  cross join lateral jsonb_to_recordset(c -> 'rows') r(id uuid, at timestamptz, until timestamptz, n bigint, cause text,
    extra boolean, outcome text, jitter double precision, overlap text, task uuid, payload text)
  join sluice.schedules s on s.id = (c ->> 'id')::bigint
  join sluice.queues q on q.id = s.queue_id;
  update sluice.schedule_runs r set outcome = 'running', task_id = e.task, fired_at = v_now, replica = p_replica
  from jsonb_array_elements(v_changes) c cross join lateral jsonb_to_recordset(c -> 'starts') e(id uuid, task uuid)
  where r.id = e.id and r.outcome = 'waiting';

  select array_agg(e.task) into v_tasks
  from (select x.task from jsonb_array_elements(v_changes) c cross join lateral jsonb_to_recordset(c -> 'starts') x(task uuid)
        union all
        select x.task from jsonb_array_elements(v_changes) c cross join lateral jsonb_to_recordset(c -> 'rows') x(task uuid)
        where x.task is not null) e;
  with runs as (
    select r.task_id, r.nominal_at, coalesce(r.payload, s.payload) as run_payload, s.*
    from unnest(v_tasks) e(task)
    join sluice.schedule_runs r on r.task_id = e.task join sluice.schedules s on s.id = r.schedule_id),
  formed as (
    insert into sluice.batches (id, tenant_id, queue_id, sealed, run_open, total)
    select r.task_id, r.tenant_id, r.queue_id, true, true, 1 from runs r),
  completions as (
    insert into sluice.batch_completions (batch_id, digest, queue_id, payload, sealed_for, type)
    select r.task_id, r.then_digest, r.then_queue_id, r.then_payload, r.then_sealed_for,
      r.definition::json #>> '{on_complete,type}'
    from runs r where r.then_queue_id is not null)
  insert into sluice.tasks (
    id, tenant_id, queue_id, handler_id, state, priority, run_at, created_at, payload, options, max_attempts, batch_id)
  select r.task_id, r.tenant_id, r.queue_id, r.handler_id, :state_ready, r.priority, v_now, v_now, r.run_payload,
    coalesce(r.options, '{}') || jsonb_strip_nulls(jsonb_build_object(
      'schedule', r.name, 'scheduled_for', r.nominal_at, 'schedule_timezone', r.definition::json ->> 'timezone')),
    r.max_attempts, r.task_id
  from runs r order by r.task_id;
  return query select unnest(v_ids);
end $$;
