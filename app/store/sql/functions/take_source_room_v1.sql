-- One round of a replica that receives from a source: write what it has done since the last one, and take room for what it may receive
-- next. Returns how many messages that is, and whether it is this replica's turn to measure how much waits; no row if it must
-- not go on, because the source has changed, is paused or gone.
-- The row of source_states is locked first, so that rooms of replicas never add up to more than max_outstanding: what others have taken is
-- counted, as long as they live, until their tasks are noted here. Tasks that have ended are looked for only where room is short.
-- p_error: what has failed; p_worked: something was received or enqueued, before it failed.
create function sluice.take_source_room_v1(
  p_source bigint, p_version bigint, p_replica uuid, p_most integer, p_outstanding integer, p_tasks uuid[], p_counts bigint[],
  p_in_flight integer, p_error text, p_worked boolean, p_alive_seconds double precision,
  p_measure_seconds double precision)
returns table (room integer, measure boolean) language plpgsql volatile
as $$
declare v_now timestamptz; v_measured_at timestamptz; v_room integer; v_taken integer; v_go boolean;
begin
  update sluice.source_states s set
    received = s.received + p_counts[1], enqueued = s.enqueued + p_counts[2], duplicates = s.duplicates + p_counts[3],
    invalid = s.invalid + p_counts[4], lost = s.lost + p_counts[5],
    last_received_at = case when p_counts[1] > 0 then clock_timestamp() else s.last_received_at end,
    last_error = coalesce(p_error, s.last_error),
    last_error_at = case when p_error is null then s.last_error_at else clock_timestamp() end
  where s.source_id = p_source returning s.measured_at into v_measured_at;
  if not found then return; end if;
  v_now := clock_timestamp();
  insert into sluice.source_tasks (source_id, task_id) select p_source, i.id from unnest(p_tasks) i(id) on conflict do nothing;
  v_go := exists (select from sluice.sources s where s.id = p_source and s.version = p_version and not s.paused) and p_most > 0;
  if v_go then
    select coalesce(sum(r.reserved), 0) into v_taken from sluice.source_receivers r join sluice.replicas p on p.id = r.replica_id
    where r.source_id = p_source and r.replica_id <> p_replica and p.seen_at > v_now - make_interval(secs => p_alive_seconds);
    v_room := p_outstanding - v_taken - (select count(*) from sluice.source_tasks k where k.source_id = p_source);
    if v_room < p_most then
      delete from sluice.source_tasks k where k.source_id = p_source and not exists (select from sluice.tasks t where t.id = k.task_id);
      v_room := p_outstanding - v_taken - (select count(*) from sluice.source_tasks k where k.source_id = p_source);
    end if;
    v_room := greatest(0, least(p_most, v_room));
  end if;
  insert into sluice.source_receivers as r (source_id, replica_id, reserved, in_flight, failing_since)
  values (p_source, p_replica, coalesce(v_room, 0), p_in_flight, case when p_error is not null then v_now end)
  on conflict on constraint source_receivers_pkey do update set
    reserved = excluded.reserved, in_flight = excluded.in_flight,
    failing_since = case when p_error is null then case when not p_worked then r.failing_since end
                         when p_worked then v_now else coalesce(r.failing_since, v_now) end;
  if v_go then
    room := v_room; measure := v_measured_at is null or v_measured_at < v_now - make_interval(secs => p_measure_seconds);
    if measure then update sluice.source_states s set measured_at = v_now where s.source_id = p_source; end if;
    return next;
  end if;
end $$;
