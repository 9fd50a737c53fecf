-- Cancel, with reason purged, up to p_limit waiting tasks of a queue that were created by p_before, in the order of ids after
-- p_after. Returns how many, the last id, and what call_back_v1 says. Rows locked by others are skipped, unless p_wait: the last round waits for them.
create function sluice.purge_v1(p_queue bigint, p_before timestamptz, p_after uuid, p_limit integer, p_wait boolean)
returns table (purged integer, last_id uuid, callbacks jsonb) language plpgsql volatile
as $$
declare v_ids uuid[];
begin
  if p_wait then
    select array_agg(l.id) into v_ids
    from (select t.id from sluice.tasks t
          where t.queue_id = p_queue and t.id > p_after and t.state <> :state_running and t.claims >= 0 and t.created_at <= p_before
          order by t.id limit p_limit for update) l;
  else
    select array_agg(l.id) into v_ids
    from (select t.id from sluice.tasks t
          where t.queue_id = p_queue and t.id > p_after and t.state <> :state_running and t.claims >= 0 and t.created_at <= p_before
          order by t.id limit p_limit for update skip locked) l;
  end if;
  purged := coalesce(cardinality(v_ids), 0);
  if purged > 0 then
    last_id := v_ids[purged];
    callbacks := sluice.bury_v1(v_ids, :state_cancelled::smallint, 'purged', array_fill(clock_timestamp(), array[purged]));
  end if;
  return next;
end $$;
