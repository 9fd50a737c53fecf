-- Act on up to p_limit listed tasks of an action, in the order of ids, each at most once: what became of them, and that they are off
-- the list, is one transaction. Returns {"verdict", ...}: busy (another replica is at it) · waits ("seconds": its rate allows nothing
-- before) · unlisted (what matches has not been listed yet) · over (it has ended) · again (go on) · acted, with "left" (whether it goes
-- on), "acted" (how many tasks), "done", "cancelled" [what cancel_v1 returns], "purged" {queue id: how many; of move: that left it},
-- "called" [what call_back_v1 says], "lanes" [[queue id, handler id]], "due_at", "batches" (whether tasks of a batch moved).
-- Tasks whose rows others have locked stay on the list for a second pass, which waits for them.
-- Takes the action's row first: nobody waits for one while holding anything else. Queues and handlers are locked as by retry_v1.
create function sluice.act_v1(p_action uuid, p_limit integer) returns jsonb language plpgsql volatile
as $$
declare
  v_action record; v_now timestamptz; v_listed uuid[]; v_live uuid[]; v_ended uuid[]; v_fit uuid[]; v_moved uuid[];
  v_done uuid[] := '{}'; v_passed uuid[]; v_refused jsonb; v_cancelled jsonb; v_called jsonb; v_purged jsonb; v_lanes jsonb;
  v_sent jsonb; v_before integer; v_count integer; v_acted integer; v_left boolean; v_batches boolean := false;
begin
  select * into v_action from sluice.actions a where a.id = p_action for update skip locked;
  if not found then return '{"verdict": "busy"}'; end if;
  if v_action.state <> 'running' then return '{"verdict": "over"}'; end if;
  v_now := clock_timestamp();
  if v_action.next_at > v_now then
    return jsonb_build_object('verdict', 'waits', 'seconds', extract(epoch from v_action.next_at - v_now));
  end if;
  if not v_action.listed and v_action.most is null then return '{"verdict": "unlisted"}'; end if;
  select array_agg(l.task_id order by l.task_id) into v_listed
  from (select t.task_id from sluice.action_tasks t where t.action_id = p_action and t.task_id > v_action.acted_to
        order by t.task_id limit least(p_limit, v_action.most - v_action.done)) l;
  if v_listed is null then
    if not v_action.waits and v_action.done < coalesce(v_action.most, v_action.found)
       and exists (select from sluice.action_tasks t where t.action_id = p_action) then
      update sluice.actions a set waits = true, acted_to = '00000000-0000-0000-0000-000000000000' where a.id = p_action;
      return '{"verdict": "again"}';
    end if;
    if not v_action.listed and v_action.done < v_action.most then return '{"verdict": "unlisted"}'; end if;
    update sluice.actions a set state = 'done', ended_at = v_now where a.id = p_action;
    return '{"verdict": "over"}';
  end if;
  if v_action.kind not in ('cancel', 'empty', 'purge') then
    perform pg_advisory_xact_lock_shared(:lock_handler, s.h::integer)
      from (select t.handler_id as h from sluice.tasks t where t.id = any(v_listed) and t.handler_id <> 0
            union select t.handler_id from sluice.task_history t where t.id = any(v_listed) and t.handler_id <> 0 order by 1) s;
    perform pg_advisory_xact_lock_shared(:lock_queue, s.q::integer)
      from (select t.queue_id as q from sluice.tasks t where t.id = any(v_listed)
            union select t.queue_id from sluice.task_history t where t.id = any(v_listed) order by 1) s;
  end if;
  perform set_config('lock_timeout', '500', true);  -- as in retry_v1
  if v_action.kind <> 'redrive' then
    if v_action.waits then
      select array_agg(l.id) into v_live
      from (select t.id from sluice.tasks t where t.id = any(v_listed) and t.tenant_id = v_action.tenant_id order by t.id for update) l;
    else
      select array_agg(l.id) into v_live
      from (select t.id from sluice.tasks t where t.id = any(v_listed) and t.tenant_id = v_action.tenant_id
            order by t.id for update skip locked) l;
    end if;
  end if;
  v_live := coalesce(v_live, '{}');
  if v_action.kind in ('retry', 'redrive') then
    if v_action.waits then
      select array_agg(l.id) into v_ended
      from (select t.id from sluice.task_history t where t.id = any(v_listed) and t.tenant_id = v_action.tenant_id
            and t.state in (:state_dead, :state_cancelled) order by t.id for update of t) l;
    else
      select array_agg(l.id) into v_ended
      from (select t.id from sluice.task_history t where t.id = any(v_listed) and t.tenant_id = v_action.tenant_id
            and t.state in (:state_dead, :state_cancelled) order by t.id for update of t skip locked) l;
    end if;
  end if;
  v_ended := coalesce(v_ended, '{}');
  v_now := clock_timestamp();
  -- not for an empty array, which implies every predicate of an index to the planner
  if v_action.kind not in ('cancel', 'empty') and v_live <> '{}' then
    select coalesce(array_agg(t.id order by t.id), '{}'), coalesce(bool_or(t.batch_id is not null), false) into v_done, v_batches
    from sluice.tasks t where t.id = any(v_live) and t.state <> :state_running;
  end if;

  if v_action.kind in ('cancel', 'empty') and v_live <> '{}' then
    v_done := v_live;
    select jsonb_agg(to_jsonb(c) - 'callbacks') filter (where c.task_id is not null),
           jsonb_agg(c.callbacks) filter (where c.task_id is null) into v_cancelled, v_called
    from sluice.cancel_v1(v_action.tenant_id, v_live, case v_action.kind when 'empty' then 'purged' else 'requested' end) c;
  elsif v_action.kind = 'purge' and v_done <> '{}' then
    select jsonb_object_agg(p.queue_id, p.n) into v_purged
    from (select t.queue_id, count(*) as n from sluice.tasks t where t.id = any(v_done) group by 1) p;
    v_called := sluice.bury_v1(v_done, :state_cancelled::smallint, 'purged', array_fill(v_now, array[cardinality(v_done)]));
    v_called := case when v_called is not null then jsonb_build_array(v_called) end;
  elsif v_action.kind = 'move' and v_done <> '{}' then
    v_sent := sluice.move_v1(v_done, (v_action.search ->> 'to')::bigint);
    v_called := v_sent -> 'called';
    select coalesce(array_agg(m.id::uuid), '{}') into v_done from jsonb_array_elements_text(v_sent -> 'moved') m(id);
    if v_done <> '{}' then v_purged := jsonb_build_object(v_action.search #>> '{queue_ids,0}', cardinality(v_done)); end if;
  elsif v_done <> '{}' then
    perform sluice.signal_flows_v1(v_done);  -- of the flows they may leave
    if v_action.kind = 'set_priority' then
      update sluice.tasks t set priority = v_action.priority where t.id = any(v_done) and t.priority <> v_action.priority;
    elsif v_action.kind = 'reschedule' then
      update sluice.tasks t set run_at = greatest(v_action.run_at, v_now),
        state = case when v_action.run_at > v_now then :state_scheduled else :state_ready end
      where t.id = any(v_done);
    else
      update sluice.tasks t set state = :state_ready, run_at = case when t.state = :state_scheduled then v_now else t.run_at end,
        expires_at = case when t.expires_at > v_now then t.expires_at end
      where t.id = any(v_done) and (t.state = :state_scheduled or t.expires_at <= v_now);
    end if;
    perform sluice.signal_flows_v1(v_done);
  end if;
  if v_ended <> '{}' then
    select array_agg(t.id order by t.id), bool_or(t.batch_id is not null) or v_batches into v_fit, v_batches
    from sluice.task_history t
    where t.id = any(v_ended) and t.kept_until > v_now and (v_action.kind = 'retry' or t.state = :state_dead)
      and (t.handler_id = 0 or exists (select from sluice.handlers h where h.id = t.handler_id and h.deleted_at is null))
      and exists (select from sluice.queues q where q.id = t.queue_id and q.deleted_at is null);
    if v_fit is not null then
      v_moved := sluice.revive_v1(v_fit, v_now);
      v_done := v_done || v_moved;
    end if;
  end if;
  if v_action.kind not in ('cancel', 'empty', 'move', 'purge') and v_done <> '{}' then
    select jsonb_agg(jsonb_build_array(d.queue_id, d.handler_id)) into v_lanes
    from (select distinct t.queue_id, t.handler_id from sluice.tasks t where t.id = any(v_done) and t.state = :state_ready) d;
  end if;

  -- what became of the others, or of whom others hold the rows: those are passed over
  select array_agg(w.id) filter (where w.why is null), count(*) filter (where w.why = 'done'),
         jsonb_agg(jsonb_build_object('task', w.id, 'why', w.why) order by w.id) filter (where w.why <> 'done')
    into v_passed, v_before, v_refused
  from (
    select s.id, case
        when t.id is not null and v_action.kind = 'redrive' then 'not_dead'
        when t.id is not null and t.state = :state_running and t.id = any(v_live) then 'running'
        when t.id is not null and v_action.kind = 'move' and t.id = any(v_live) then 'orphaned'
        when t.id is not null or h.state is null then case when v_action.waits then 'gone' end
        when s.id = any(v_fit) then 'held'
        when h.state = :state_cancelled and v_action.kind in ('cancel', 'empty') then 'done'
        when v_action.kind = 'redrive' and h.state <> :state_dead then 'not_dead'
        when v_action.kind in ('retry', 'redrive') and h.state <> :state_succeeded then case
          when s.id = any(v_ended) then 'orphaned' when v_action.waits then 'gone' end
        else 'ended' end as why
    from (select l.id from unnest(v_listed) l(id) where l.id <> all(v_done)) s
    left join sluice.tasks t on t.id = s.id and t.tenant_id = v_action.tenant_id
    left join lateral (select e.state from sluice.task_history e
                       where e.id = s.id and e.tenant_id = v_action.tenant_id and e.kept_until > v_now limit 1) h on true) w;
  v_acted := cardinality(v_listed) - coalesce(cardinality(v_passed), 0);
  v_count := cardinality(v_done) + v_before;
  delete from sluice.action_tasks t
  where t.action_id = p_action and t.task_id = any(v_listed) and (v_passed is null or t.task_id <> all(v_passed));
  v_left := v_action.done + v_count < v_action.most and not v_action.listed
    or v_action.done + v_count < coalesce(v_action.most, v_action.found)
       and exists (select from sluice.action_tasks t where t.action_id = p_action);
  update sluice.actions a set
    acted_to = v_listed[cardinality(v_listed)], done = a.done + v_count, refused = a.refused + coalesce(jsonb_array_length(v_refused), 0),
    errors = case when jsonb_array_length(a.errors) < 20 and v_refused is not null
      then (select jsonb_agg(e.one order by e.place)
            from jsonb_array_elements(a.errors || v_refused) with ordinality e(one, place) where e.place <= 20)
      else a.errors end,
    next_at = case when a.rate_per_second is null then a.next_at else v_now + make_interval(secs => v_acted / a.rate_per_second) end,
    state = case when v_left then a.state else 'done' end, ended_at = case when not v_left then clock_timestamp() end
  where a.id = p_action;
  return jsonb_build_object(
    'verdict', 'acted', 'left', v_left, 'acted', v_acted, 'done', v_count, 'cancelled', coalesce(v_cancelled, '[]'),
    'purged', coalesce(v_purged, '{}'), 'called', coalesce(v_called, '[]'), 'lanes', coalesce(v_lanes, '[]'),
    'due_at', case when v_action.kind = 'reschedule' then extract(epoch from v_action.run_at) end,
    'batches', coalesce(v_batches, false));
end $$;
